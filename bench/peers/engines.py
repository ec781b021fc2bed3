"""The engines that are compared: how each is started, with which flags, and what is measured of it.

An engine's `measure` does the same work as every other's: a prompt of 4 tokens and one more as soon as it can, prompts of
512 tokens (and longer) alone, 128 tokens alone, and the workload at once. It returns

    first_token_s           from the start of the process
    prefill_tokens_per_s    {"512": ...}: the prompt over the time to its first token
    decode_tokens_per_s     one sequence alone
    workload                output_tokens, wall_s, output_tokens_per_s
    peak_memory_mib, cpu_s, others_share    see process.py
"""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import time
import urllib.error
import urllib.request

import environments
from process import Measured

DRIVERS = pathlib.Path(__file__).parent / "drivers"
THREADS = 2
PORT = 8377
# A process that takes longer hangs; Transformers takes a quarter of an hour for the workload.
TIMEOUT_S = 3000
START_TIMEOUT_S = 600
ALONE_PREFILLS, ALONE_DECODES, ALONE_CONTEXT, ALONE_TOKENS = 3, 3, 16, 128
ALONE_CONTEXT_SIZE = 8192


class EngineFailed(Exception):
    """It ended, refused a request or did not start; says where its output is."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is measured, and where to put what is written meanwhile."""
    models: pathlib.Path
    workload: pathlib.Path
    folder: pathlib.Path
    pagemill: pathlib.Path
    prefill_lens: tuple[int, ...] = (512,)

    def tokens(self) -> list[int]:
        requests = [json.loads(line) for line in self.workload.read_text().splitlines()]
        return [token for request in requests for token in request["prompt_token_ids"]]


@dataclasses.dataclass(frozen=True)
class Engine:
    peer: str
    precision: str
    model: str
    settings: dict = dataclasses.field(default_factory=dict)
    env: dict = dataclasses.field(default_factory=dict)
    # The first so many of the workload, where all of them would take too long.
    max_requests: int | None = None

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.precision}"

    def flags(self) -> dict:
        """For the report."""
        return {**self.settings, **self.env}


class PythonEngine(Engine):
    """In a process of its own environment's Python: see drivers/offline.py."""
    driver: str

    def measure(self, job: Job) -> dict:
        files = {name: job.folder / f"{self.peer}-{self.precision}.{name}" for name in ("job", "result", "log")}
        files["result"].unlink(missing_ok=True)
        files["job"].write_text(json.dumps({
            "model": str(job.models / self.model), "workload": str(job.workload), "started": time.time(),
            "prefill_lens": job.prefill_lens, "max_requests": self.max_requests, "output": str(files["result"]),
            "settings": self.settings}))
        process = Measured([environments.python_of(self.peer), DRIVERS / self.driver, files["job"]], files["log"], self.env)
        status = process.wait(TIMEOUT_S)
        taken = process.report()
        if status != 0 or not files["result"].exists():
            raise EngineFailed(f"{self.name}: exit status {status}; see {files['log']}")
        return {**json.loads(files["result"].read_text()), **taken}


class Vllm(PythonEngine):
    driver = "vllm_engine.py"

    def server(self, job: Job) -> list:
        return [environments.python_of(self.peer), DRIVERS / "vllm_server.py", "serve", job.models / self.model,
                "--served-model-name", "model", "--port", PORT, "--dtype", "bfloat16", "--no-enable-prefix-caching",
                *(f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items())]


class OpenVino(PythonEngine):
    driver = "openvino_engine.py"


class Transformers(PythonEngine):
    driver = "transformers_engine.py"


class LlamaCpp(Engine):
    """Only as a server: that is what batches. One sequence alone has a server of one slot, with all the context."""

    def alone(self) -> "LlamaCpp":
        return dataclasses.replace(self, settings={**self.settings, "slots": 1, "context": ALONE_CONTEXT_SIZE})

    def server(self, job: Job) -> list:
        settings = {**self.settings, "model": str(job.models / self.model), "port": PORT, "threads": THREADS}
        return [environments.python_of(self.peer), DRIVERS / "llama_server.py", json.dumps(settings)]

    def measure(self, job: Job) -> dict:
        with Server(self.alone(), job) as server:
            result = {"first_token_s": server.first_token_s, **alone_over_http(server, job)}
        with Server(self, job) as server:
            line = server.load(job.workload, "--request-rate", 0)
            result["workload"] = {"requests": line["requests"], "output_tokens": line["output_tokens"],
                                  "wall_s": line["wall_s"], "output_tokens_per_s": line["output_tokens_per_s"]}
        return {**result, **server.taken}


class Pagemill(Engine):
    def options(self) -> list:
        return [item for name, value in self.settings.items() for item in (f"--{name}", value)]

    def server(self, job: Job) -> list:
        return [job.pagemill, "serve", job.models / self.model, "--served-model-name", "model", "--port", PORT,
                "--threads", THREADS, *self.options()]

    def bench(self, job: Job, kind: str, *arguments: object) -> tuple[list[dict], dict]:
        """The lines that it prints, and what the process took."""
        log = job.folder / f"{self.peer}-{self.precision}.{kind}.log"
        command = [job.pagemill, "bench", kind, job.models / self.model, "--threads", THREADS, *self.options(), *arguments]
        process = Measured([*map(str, command)], log)
        status = process.wait(TIMEOUT_S)
        taken = process.report()
        if status != 0:
            raise EngineFailed(f"{self.name}: exit status {status}; see {log}")
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["bench"] == kind], taken

    def first_token_s(self, job: Job) -> float:
        command = [job.pagemill, "generate", job.models / self.model, *self.options(), "-p", "Hello", "--max-tokens", 1,
                   "--temperature", 0]
        begin = time.perf_counter()
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.read(1)
            seconds = time.perf_counter() - begin
            process.stdout.read()
        if process.returncode != 0:
            raise EngineFailed(f"{self.name}: exit status {process.returncode}: {command}")
        return seconds

    def measure(self, job: Job) -> dict:
        result = {"first_token_s": self.first_token_s(job), "prefill_tokens_per_s": {}}
        for length in job.prefill_lens:
            lines, _ = self.bench(job, "latency", "--input-len", length, "--repeats", ALONE_PREFILLS)
            speeds = [line["prefill_tokens_per_s"] for line in lines]
            result["prefill_tokens_per_s"][str(length)] = statistics.median(speeds)
            result["decode_tokens_per_s"] = statistics.median(line["decode_tokens_per_s"] for line in lines)
        (line,), taken = self.bench(job, "throughput", "--workload", job.workload, "--no-prefix-caching", "--repeats", 1)
        result["workload"] = {"requests": line["requests"], "output_tokens": line["output_tokens"], "wall_s": line["wall_s"],
                              "output_tokens_per_s": line["output_tokens_per_s"]}
        return {**result, **taken}


class Server:
    """An OpenAI-compatible server of one engine, from its start until the block ends."""

    def __init__(self, engine: Engine, job: Job):
        self._engine, self._job, self.taken = engine, job, {}

    def __enter__(self) -> "Server":
        log = self._job.folder / f"{self._engine.peer}-{self._engine.precision}.server.log"
        self._process = Measured([*map(str, self._engine.server(self._job))], log, self._engine.env)
        self._client_cpu_s = 0.0
        try:
            self.model = self._wait_until_ready(log)
            self._complete([1, 2, 3, 4])
        except BaseException:
            self._process.stop()
            raise
        self.first_token_s = time.time() - self._process.started
        return self

    def __exit__(self, *_: object) -> None:
        self.taken = self._process.report()
        self._process.stop()

    def _wait_until_ready(self, log: pathlib.Path) -> str:
        """The name of its model."""
        while time.time() - self._process.started < START_TIMEOUT_S and self._process.running():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/models", timeout=2) as answer:
                    return json.load(answer)["data"][0]["id"]
            except (OSError, urllib.error.HTTPError, KeyError, IndexError, ValueError):
                time.sleep(0.02)
        raise EngineFailed(f"{self._engine.name}: the server did not start; see {log}")

    def _complete(self, prompt: list[int]) -> None:
        body = {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", data=json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:
            json.load(answer)

    def load(self, workload: pathlib.Path, *arguments: object) -> dict:
        """What `pagemill bench serve` measures of it."""
        command = [self._job.pagemill, "bench", "serve", "--base-url", f"http://127.0.0.1:{PORT}", "--model", self.model,
                   "--workload", workload, "--repeats", 1, *arguments]
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise EngineFailed(f"{self._engine.name}: {done.stderr}")
        line = json.loads(done.stdout.splitlines()[-1])
        if line["requests_failed"]:
            raise EngineFailed(f"{self._engine.name}: {line['requests_failed']} requests failed: {done.stderr}")
        return line


def measure_serving(engine: Engine, job: Job, concurrencies: tuple[int, ...], rates: tuple[float, ...]) -> dict:
    """The workload at each load, one after the other, on a server that stays up."""
    loads = []
    with Server(engine, job) as server:
        for kind, of_kind in (("concurrency", concurrencies), ("rate", rates)):
            for load in of_kind:
                how = ["--max-concurrency", load, "--request-rate", 0] if kind == "concurrency" else ["--request-rate", load]
                loads.append({"kind": kind, "load": load, **server.load(job.workload, *how)})
    return {"first_token_s": server.first_token_s, "loads": loads, **server.taken}


def alone_over_http(server: Server, job: Job) -> dict:
    """Prompts and tokens of one sequence alone, each request after the one before."""
    tokens = job.tokens()

    def load(prompts: list[list[int]], output_len: int) -> dict:
        path = job.folder / "alone.jsonl"
        path.write_text("".join(json.dumps({"prompt_token_ids": prompt, "output_len": output_len}) + "\n" for prompt in prompts))
        return server.load(path, "--request-rate", 0, "--max-concurrency", 1)

    prefill = {}
    for length in job.prefill_lens:
        line = load([tokens[100 * i:100 * i + length] for i in range(ALONE_PREFILLS)], 1)
        prefill[str(length)] = length / (line["ttft_p50_ms"] / 1e3)
    prompts = [tokens[50 * i:50 * i + ALONE_CONTEXT] for i in range(ALONE_DECODES)]
    line = load(prompts, 1 + ALONE_TOKENS)
    decode_s = (line["e2e_p50_ms"] - line["ttft_p50_ms"]) / 1e3
    return {"prefill_tokens_per_s": prefill, "decode_tokens_per_s": ALONE_TOKENS / decode_s}
