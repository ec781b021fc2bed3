#!/usr/bin/env python3
"""The pinned clang-tidy over every C++ source, with the compile commands of a build and the checks of .clang-tidy.

    scripts/tidy.py               every .cc of the tree, but the Python package's binding
    scripts/tidy.py --build build/wheel python/src/*.cc    that, once the package has been built
    scripts/tidy.py FILE ...      some

Needs a build (for its compile commands and the headers that it generates) and build/venv (scripts/venv.sh). Prints
`FINDINGS path` and what they are for each file that has some and, last, `N clean, N with findings`; the exit status is 1
if there are any.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The distributions' own differ in what they find; this one is also three times as fast as Debian 12's, since it passes
# over what lies in system headers.
CLANG_TIDY = ROOT / "build/venv/bin/clang-tidy"


def sources() -> list[str]:
    """Fuzzers too: only the fuzz preset has commands for them, so clang-tidy takes those of the file most alike."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.cc"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    return sorted(path for path in set(listed.splitlines()) if (ROOT / path).is_file() and not path.startswith("python/"))


def write_commands(build: pathlib.Path, folder: str) -> None:
    """The build's commands less -Werror: gcc's warnings are the build's business, clang's are not asked for."""
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    for entry in commands:
        entry["command"] = entry["command"].replace(" -Werror ", " ")
    (pathlib.Path(folder) / "compile_commands.json").write_text(json.dumps(commands), encoding="utf-8")


def tidy(commands: str, path: str) -> str:
    """What clang-tidy finds, or nothing."""
    done = subprocess.run([CLANG_TIDY, "-p", commands, "--quiet", path], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if not (options.build / "compile_commands.json").is_file():
        sys.exit(f"{options.build} has no compile_commands.json: run `make build` first")
    if not CLANG_TIDY.is_file():
        sys.exit(f"no {CLANG_TIDY}: run scripts/venv.sh first")
    clean = found = 0
    files = options.files or sources()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        write_commands(options.build, folder)
        for path, output in zip(files, pool.map(lambda path: tidy(folder, path), files)):
            if output:
                found += 1
                print(f"FINDINGS {path}\n{output}", flush=True)
            else:
                clean += 1
    print(f"{clean} clean, {found} with findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
