"""What every engine that runs inside a Python process is asked to do: the drivers beside this file import it.

A driver is started with a job file (JSON: model, workload, started, prefill_lens, max_requests, output, settings) and
writes what it measured to `output`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"

Generate = Callable[[list[list[int]], list[int]], list[list[int]]]
PREFILLS, DECODES, DECODE_TOKENS = 3, 3, 128


def run(load: Callable[[dict], Generate]) -> None:
    """`load` makes the engine; what it returns generates exactly so many greedy tokens after each prompt."""
    with open(sys.argv[1]) as file:
        job = json.load(file)
    generate = load(job)
    generate([[1, 2, 3, 4]], [1])
    result = {"first_token_s": time.time() - job["started"]}
    with open(job["workload"]) as file:
        requests = [json.loads(line) for line in file][:job["max_requests"]]
    tokens = [token for request in requests for token in request["prompt_token_ids"]]

    def timed(prompts: list[list[int]], lengths: list[int]) -> float:
        begin = time.perf_counter()
        answers = generate(prompts, lengths)
        seconds = time.perf_counter() - begin
        if [len(answer) for answer in answers] != lengths:
            raise SystemExit(f"{[len(answer) for answer in answers]} tokens instead of {lengths}")
        return seconds

    timed([tokens[:32]], [8])
    result["prefill_tokens_per_s"] = {}
    for length in job["prefill_lens"]:
        runs = [length / timed([tokens[100 * i:100 * i + length]], [1]) for i in range(PREFILLS)]
        result["prefill_tokens_per_s"][str(length)] = statistics.median(runs)
    decodes = []
    for i in range(DECODES):
        prompt = tokens[50 * i:50 * i + 16]
        first = timed([prompt], [1])
        decodes.append(DECODE_TOKENS / (timed([prompt], [1 + DECODE_TOKENS]) - first))
    result["decode_tokens_per_s"] = statistics.median(decodes)
    lengths = [request["output_len"] for request in requests]
    seconds = timed([request["prompt_token_ids"] for request in requests], lengths)
    result["workload"] = {"requests": len(requests), "output_tokens": sum(lengths), "wall_s": seconds,
                          "output_tokens_per_s": sum(lengths) / seconds}
    with open(job["output"], "w") as file:
        json.dump(result, file)
