"""What a benchmark ran on, for its report."""

import os
import platform
import re
import subprocess


def _cpu_field(name: str) -> str:
    with open("/proc/cpuinfo") as file:
        match = re.search(rf"^{name}\s*: (.*)$", file.read(), re.MULTILINE)
    return match.group(1) if match else ""


def _isa() -> str:
    flags = set(_cpu_field("flags").split())
    names = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]
    return ", ".join(name for name in names if name in flags) or "none of AVX2, AVX-512"


def _memory_gib() -> float:
    with open("/proc/meminfo") as file:
        return int(re.search(r"^MemTotal:\s+(\d+)", file.read(), re.MULTILINE).group(1)) / 2**20


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def cpu() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{_cpu_field('model name') or platform.processor()}, {cores} logical cores available"


def describe() -> str:
    """Lines of Markdown."""
    lines = [
        f"- CPU: {cpu()}",
        f"- Instruction sets: {_isa()}" + (f"; forced: {os.environ['PAGEMILL_ISA']}" if "PAGEMILL_ISA" in os.environ
                                           else ""),
        f"- Memory: {_memory_gib():.1f} GiB",
        f"- System: {platform.system()} {platform.release()}",
        f"- Load average before: {os.getloadavg()[0]:.1f}",
        f"- Commit: {commit()}",
    ]
    return "\n".join(lines)
