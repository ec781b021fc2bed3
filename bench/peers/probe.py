"""What the processors do at the moment: two virtual ones that share a core are worth little more than one."""

import json
import pathlib
import subprocess

# Arithmetic is what is asked for: the small buffer and the few runs keep it at some seconds.
LIMITS = ["bench", "limits", "--repeats", "3", "--buffer-size", "64MiB"]


def probe(pagemill: pathlib.Path) -> dict[str, float]:
    """GFLOP/s of VFMADD on one thread and on all, and how many threads' worth all are."""
    done = subprocess.run([pagemill, *LIMITS], check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    best: dict[int, float] = {}
    for line in lines:
        if line.get("instruction") == "VFMADD":
            best[line["threads"]] = max(best.get(line["threads"], 0), line["gflops"])
    one, every = best[min(best)], best[max(best)]
    return {"one_thread_gflops": round(one, 1), "all_threads_gflops": round(every, 1), "worth_threads": round(every / one, 2)}
