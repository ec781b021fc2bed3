#!/usr/bin/env python3
"""Measures Pagemill beside vLLM, OpenVINO GenAI, llama.cpp and Transformers: same work, same cores, in turn.

    bench/peers/run.py                      everything: environments, models, rounds, report
    bench/peers/run.py setup                only the first two: some 25 GB under build/peers (or $PAGEMILL_PEERS)
    bench/peers/run.py measure smollm2      rounds of one suite; they are added to those of the same commit
    bench/peers/run.py measure smollm2 --engines 'pagemill, bf16;vllm, bf16' --rounds 1
    bench/peers/run.py report               docs/peers.md from the rounds in docs/peers/

Leave the machine alone meanwhile: a round of the suite smollm2 takes half an hour. Needs libtcmalloc-minimal4 for vLLM.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

import environments
import report
from engines import EngineFailed, Job, measure_serving
from probe import probe
from suites import SUITES

sys.path.append(str(environments.ROOT / "bench"))
import machine

MODELS = environments.FOLDER / "models"
OPENVINO_EXPORTS = {f"{name}-openvino-{kind}": (source, weight_format)
                    for name, source in (("smollm2", "smollm2-bf16"), ("llama-1b", "llama-1b"))
                    for kind, weight_format in (("bf16", "fp16"), ("int8", "int8"))}


def setup() -> None:
    for name in environments.REQUIREMENTS:
        environments.make(name)
    sys.path.append(str(environments.ROOT / "scripts"))
    import fetch_demo

    demo = fetch_demo.models_dir() / fetch_demo.FILE
    subprocess.run([environments.python_of("transformers"), pathlib.Path(__file__).parent / "prepare/models.py", demo,
                    MODELS], check=True)
    for name, (source, weight_format) in OPENVINO_EXPORTS.items():
        if not (MODELS / name).exists():
            unfinished = MODELS / f"unfinished-{name}"
            subprocess.run([environments.folder_of("openvino") / "bin/optimum-cli", "export", "openvino", "--model",
                            MODELS / source, "--task", "text-generation-with-past", "--weight-format", weight_format,
                            unfinished], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            unfinished.rename(MODELS / name)


def measure(suite_name: str, rounds: int, only: set[str] | None, pagemill: pathlib.Path) -> None:
    suite = SUITES[suite_name]
    folder = environments.FOLDER / "runs" / suite_name
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(models=MODELS, workload=suite.write_workload(folder / "workload.jsonl"), folder=folder, pagemill=pagemill,
              prefill_lens=suite.prefill_lens)
    engines = [engine for engine in suite.engines if only is None or engine.name in only]
    if only and len(engines) != len(only):
        raise SystemExit(f"{suite_name} has {[engine.name for engine in suite.engines]}")
    versions = {name: environments.versions(name) for name in {engine.peer for engine in engines} - {"pagemill"}}
    failed: list[str] = []
    for number in range(rounds):
        for engine in engines:
            print(f"+ {suite_name}, round {number + 1} of {rounds}: {engine.name}", file=sys.stderr, flush=True)
            before = probe(pagemill)
            try:
                result = (measure_serving(engine, job, suite.concurrencies, suite.rates) if suite.rates else engine.measure(job))
            except EngineFailed as failure:  # the others' rounds are worth having
                print(f"{failure}", file=sys.stderr, flush=True)
                failed.append(engine.name)
                continue
            line = {"suite": suite_name, "engine": engine.name, "time": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
                    "commit": machine.commit(), "cpu": machine.cpu(), "versions": versions.get(engine.peer, {}),
                    "flags": engine.flags(), "max_requests": engine.max_requests, "probe_before": before, "probe_after": probe(pagemill),
                    "result": result}
            print(json.dumps(result), file=sys.stderr, flush=True)
            report.add_round(line)
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "setup", "measure", "report"], default="all")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: each)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", help="only these, separated by semicolons")
    parser.add_argument("--pagemill", type=pathlib.Path, default=environments.ROOT / "build/release/src/cli/pagemill")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}")
    if options.what in ("all", "setup"):
        setup()
    if options.what in ("all", "measure"):
        only = set(options.engines.split(";")) if options.engines else None
        for name in options.suites or SUITES:
            measure(name, options.rounds, only, options.pagemill)
    if options.what in ("all", "report"):
        report.write()


if __name__ == "__main__":
    main()
