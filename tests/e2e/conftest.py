"""Fixtures: the real binary, serving the demo model, and real clients of it."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PAGEMILL_BIN", ROOT / "build/release/src/cli/pagemill"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`pagemill serve` as a child process, ready when the constructor returns."""

    def __init__(self, model: str, *options: str, start_limit_s: float = 60) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.NamedTemporaryFile("w+", prefix="pagemill-e2e-", suffix=".log")
        self.process = subprocess.Popen([str(BINARY), "serve", model, "--port", str(self.port), *options],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + start_limit_s
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the server did not start (exit status {self.process.poll()}):\n{self.output()}")
            time.sleep(0.02)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def output(self) -> str:
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def client(self, **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120, **options)

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300,
                                  http_client=httpx.AsyncClient(limits=httpx.Limits(max_connections=None)))

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, summed over its labels, without the prefix."""
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics", timeout=10).text):
            for sample in family.samples:
                name = sample.name.split(":", 1)[-1]
                values[name] = values.get(name, 0.0) + sample.value
        return values

    def wait_until_idle(self, limit_s: float = 5) -> None:
        """Until nothing runs or waits; fails past the limit."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            values = self.metrics()
            if values["num_requests_running"] == 0 and values["num_requests_waiting"] == 0:
                return
            time.sleep(0.02)
        raise AssertionError(f"still busy after {limit_s} s: {self.metrics()}")

    def terminate(self, limit_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def demo_path() -> str:
    """The demo model's file, fetched if need be."""
    return subprocess.run([sys.executable, str(ROOT / "scripts/fetch_demo.py")], check=True, capture_output=True,
                          text=True).stdout.strip()


@pytest.fixture(scope="session")
def server(demo_path):
    running = Server("demo")
    yield running
    alive = running.process.poll() is None
    status = running.terminate() if alive else running.process.poll()
    assert alive, f"the server died (exit status {status}):\n{running.output()}"
    assert status == 0, running.output()


@pytest.fixture
def start_server(demo_path):
    """Starts servers of the test's own; they are stopped after it."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, model: str = "demo") -> Server:
            started = Server(model, *options)
            stack.callback(started.stop)
            return started

        yield start


@pytest.fixture(autouse=True)
def server_survives(request):
    """No test may bring the shared server down or leave it busy."""
    yield
    if "server" in request.fixturenames:
        shared = request.getfixturevalue("server")
        assert shared.process.poll() is None, f"the server died:\n{shared.output()}"
        shared.wait_until_idle(30)


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def model(client) -> str:
    return client.models.list().data[0].id


@pytest.fixture
def greedy(client, model):
    """Completes a prompt greedily; keyword arguments go to the client, unknown ones into the body."""

    def complete(prompt, max_tokens=24, **options):
        return client.completions.create(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0, **options)

    return complete
