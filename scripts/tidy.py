#!/usr/bin/env python3
"""clang-tidy over src/, with the compile commands of a build and the allow-list of .clang-tidy.

    scripts/tidy.py --all                  every file
    scripts/tidy.py --limit-s 240          what changed since the last commit first, then as many others as the time
                                           allows, starting at another place with every commit, so that a few runs
                                           cover the tree

Prints each finding and, last, `N clean, N with findings, N not reached`.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def in_order(files: list[str]) -> list[str]:
    """Changed files first; the others from a place that moves with the number of commits."""
    changed = set(git("diff", "--name-only", "HEAD~1").splitlines()) & set(files)
    others = [path for path in files if path not in changed]
    start = int(git("rev-list", "--count", "HEAD") or 0) * 37 % max(len(others), 1)
    return sorted(changed) + others[start:] + others[:start]


def tidy(build: pathlib.Path, path: str) -> str:
    done = subprocess.run(["clang-tidy", "-p", str(build), "--quiet", path], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--limit-s", type=float, default=240)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    commands = json.loads((options.build / "compile_commands.json").read_text(encoding="utf-8"))
    known = sorted({os.path.relpath(entry["file"], ROOT) for entry in commands})
    files = options.files or in_order([path for path in known if path.startswith(("src/", "include/", "tests/"))])
    end = float("inf") if options.all or options.files else time.monotonic() + options.limit_s
    clean = found = late = 0

    def run(path: str) -> str | None:
        return tidy(options.build, path) if time.monotonic() < end else None

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for output in pool.map(run, files):
            if output is None:
                late += 1
            elif output:
                found += 1
                print(output, flush=True)
            else:
                clean += 1
    print(f"{clean} clean, {found} with findings, {late} not reached")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
