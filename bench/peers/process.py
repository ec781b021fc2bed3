"""Runs a program alone with priority, and says what it took: memory, processor time, and what others used meanwhile."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time

FIRST_SAMPLE_SECONDS, SAMPLE_SECONDS = 0.05, 0.5  # often at first: some processes end soon
TICKS = os.sysconf("SC_CLK_TCK")


def _take_priority() -> None:
    """In the child, before it runs: a session of its own, and most of the processor where the user may ask for it."""
    os.setsid()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text("-19")


def _session(leader: int) -> list[int]:
    """Every process of the session."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            after_name = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if int(after_name[3]) == leader:
                found.append(int(entry))
    return found


def _cpu_seconds(process: int) -> float:
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _proportional_bytes(process: int) -> int:
    """Memory of the process, pages that several processes share divided among them."""
    for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _machine_seconds() -> tuple[float, float]:
    """(busy, all) of all processors together."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields[:3] + fields[5:7]) / TICKS, sum(fields) / TICKS


class Measured:
    """A program while it runs. Its output goes to `log`."""

    def __init__(self, command: list[str], log: pathlib.Path, env: dict[str, str] | None = None):
        self.started, self.peak_bytes, self._cpu = time.time(), 0, {}
        self._busy, self._all = _machine_seconds()
        self._log = open(log, "w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, preexec_fn=_take_priority,
                                         env={**os.environ, **(env or {})})
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        pause = FIRST_SAMPLE_SECONDS
        while not self._stop.wait(pause):
            pause = min(1.5 * pause, SAMPLE_SECONDS)
            total = 0
            for process in _session(self._process.pid):
                with contextlib.suppress(OSError):
                    self._cpu[process] = _cpu_seconds(process)
                    total += _proportional_bytes(process)
            self.peak_bytes = max(self.peak_bytes, total)

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int:
        """The exit status; past the timeout the program is ended."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.stop()

    def stop(self) -> int:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(20)
        return self._process.wait()

    def report(self, other_cpu_s: float = 0) -> dict:
        """What it took until now, but for its last half second. `other_cpu_s`: what the client used, not a stranger."""
        self._stop.set()
        self._sampler.join()
        self._log.close()
        busy, everything = _machine_seconds()
        own = sum(self._cpu.values())
        return {"peak_memory_mib": round(self.peak_bytes / 2**20), "cpu_s": round(own, 1),
                "others_share": round(max(0.0, busy - self._busy - own - other_cpu_s) / (everything - self._all), 3)}
