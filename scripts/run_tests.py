#!/usr/bin/env python3
"""Builds and runs every test, part by part, and prints a table of the parts and their times.

    scripts/run_tests.py                  all parts, within an hour on two cores (make test)
    scripts/run_tests.py --long           with what takes longer (make test-long)
    scripts/run_tests.py --only unit,e2e  some parts
    scripts/run_tests.py --list           the parts

A part that fails does not stop the others; the exit status is 1 if anything failed. Logs are in build/test-logs, one
file a part. The last line counts every test case: `N passed, N failed, N skipped`. Under CI=true a test that skips fails
unless tests/allowed_skips.txt lists it and this machine's CPU is what the list says.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/test-logs"
VENV_PYTHON = "build/venv/bin/python"
PACKAGE_PYTHON = "build/python/bin/python"  # has the Python package
JOBS = os.cpu_count() or 2
# The whole takes well under an hour on two idle cores; a busy machine gets more, up to what CI allows.
TOTAL_LIMIT_S = 84 * 60
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# ctest labels: `long` tests run under --long only; `model` tests need the demo model's full size, which sanitizers make
# too slow.
SANITIZED = ["-LE", "long|model"]
# Where threads meet: what ThreadSanitizer has to see.
TSAN_TESTS = r"^pm_(base|metrics|tokenizer|kernels|layers|runner|engine|server|tiny_golden|pagemill)_test$"


class PartFailed(Exception):
    """A command of a part that should have succeeded did not; the message says which and where its log is."""


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def fail(self, name: str) -> None:
        self.failed += 1
        self.failures.append(name)

    def add(self, other: "Counts") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


@dataclasses.dataclass(frozen=True)
class AllowedSkip:
    """A test that may skip, with the words that it skips with, on a CPU that lacks one of the flags."""

    name: str
    words: str
    flags: frozenset[str]


def allowed_skips(text: str) -> list[AllowedSkip]:
    """The entries of tests/allowed_skips.txt."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(";")]
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"allowed_skips.txt:{number}: expected TEST; WORDS; FLAG..., got {line!r}")
        found.append(AllowedSkip(fields[0], fields[1], frozenset(fields[2].split())))
    return found


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """What the first processor of /proc/cpuinfo has."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo, re.M)
    if line is None:
        raise ValueError("/proc/cpuinfo: no line of flags")
    return frozenset(line.group(1).split())


def may_skip(name: str, message: str, allowed: list[AllowedSkip], flags: frozenset[str]) -> bool:
    return any(entry.name == name and entry.words in message and not entry.flags <= flags for entry in allowed)


def skip(counts: Counts, name: str, message: str) -> None:
    if IN_CI:
        allowed = allowed_skips((ROOT / "tests/allowed_skips.txt").read_text(encoding="utf-8"))
        flags = cpu_flags(pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if not may_skip(name, message, allowed, flags):
            counts.fail(f"{name} (skipped, which tests/allowed_skips.txt doesn't allow here: {message or 'no reason'})")
            return
    counts.skipped += 1


@dataclasses.dataclass
class Run:
    """What one part runs in: its log, its deadline and whether the long tests are wanted."""

    name: str
    deadline: float
    long: bool

    def __post_init__(self) -> None:
        self.log = LOGS / f"{self.name}.log"
        self.folder = LOGS / self.name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.log.write_text("")

    def call(self, *command: str, env: dict[str, str] | None = None, limit_s: float = float("inf")) -> int:
        """Runs a command into the part's log; its exit status, or 124 past the deadline (its group is then ended)."""
        with open(self.log, "a", encoding="utf-8") as log:
            print("$", *command, file=log, flush=True)
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, **(env or {})}, start_new_session=True)
            try:
                return process.wait(max(1, min(self.deadline - time.monotonic(), limit_s)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                print("ended: out of time", file=log)
                return 124
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def check(self, *command: str, env: dict[str, str] | None = None) -> None:
        status = self.call(*command, env=env)
        if status != 0:
            why = "ran out of time" if status == 124 else f"exit status {status}"
            raise PartFailed(f"`{' '.join(command)[:120]}`: {why}; see {self.log.relative_to(ROOT)}")

    def build(self, preset: str, targets: list[str]) -> None:
        with_rust = ["bash", "-c", 'source scripts/rust_env.sh && exec "$@"', "build"]
        self.check(*with_rust, "ninja", "-C", f"build/{preset}", f"-j{JOBS}", *targets)

    def configure(self, preset: str) -> None:
        with_rust = ["bash", "-c", 'source scripts/rust_env.sh && exec "$@"', "configure"]
        self.check(*with_rust, "cmake", "--preset", preset, "--log-level=NOTICE")


def count_junit(path: pathlib.Path) -> Counts:
    """Counts the cases of a JUnit file as GoogleTest and pytest write them."""
    counts = Counts()
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            counts.fail(name)
        elif (skipped := case.find("skipped")) is not None:
            skip(counts, name, " ".join(skipped.get("message", "").split()))
        elif case.get("status") == "notrun":
            skip(counts, name, "disabled")
        else:
            counts.passed += 1
    return counts


def ctest(run: Run, preset: str, selection: list[str], env: dict[str, str]) -> Counts:
    """Runs ctest; a GoogleTest program counts its cases, any other test counts as one."""
    junit = run.folder / "ctest.xml"
    run.call("ctest", "--test-dir", f"build/{preset}", f"-j{JOBS}", "--output-on-failure", "--no-tests=error",
             "--output-junit", str(junit), *selection, env={**env, "GTEST_OUTPUT": f"xml:{run.folder}/gtest/"})
    if not junit.is_file():
        raise PartFailed(f"ctest did not finish; see {run.log.relative_to(ROOT)}")
    counts = Counts()
    for test in ET.parse(junit).getroot().iter("testcase"):
        name, status = test.get("name"), test.get("status")
        cases = run.folder / "gtest" / f"{name}.xml"
        own = count_junit(cases) if cases.is_file() else None
        if own is not None:
            counts.add(own)
        if status == "run":
            if own is None:
                counts.passed += 1
        elif status == "disabled" or test.find("skipped") is not None:
            skip(counts, name, "the whole program")
        elif own is None or own.failed == 0:
            counts.fail(f"{name} (the program: crash, leak or time limit)")
    if counts.passed + counts.failed == 0:
        raise PartFailed("no test ran")
    return counts


def pytest(run: Run, *arguments: str, python: str = VENV_PYTHON, env: dict[str, str] | None = None) -> Counts:
    junit = run.folder / "pytest.xml"
    status = run.call(python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}", *arguments, env=env)
    if not junit.is_file():
        raise PartFailed(f"pytest did not finish; see {run.log.relative_to(ROOT)}")
    counts = count_junit(junit)
    if status != 0 and counts.failed == 0:
        counts.fail(f"pytest: exit status {status}")
    return counts


def part_deps(run: Run) -> Counts:
    run.check("scripts/install_deps.sh", "test")
    run.check("scripts/venv.sh")
    run.check("python3", "scripts/fetch_demo.py")
    return Counts()


def part_build(run: Run) -> Counts:
    run.configure("release")
    run.build("release", [])
    return Counts()


def part_lint(run: Run) -> Counts:
    return pytest(run, "tests/tidy")


def tidy(run: Run, *arguments: str) -> Counts:
    status = run.call("python3", "scripts/tidy.py", *arguments)
    *findings, last = run.log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    clean = re.fullmatch(r"(\d+) clean, (\d+) with findings", last)
    if clean is None:
        raise PartFailed(f"clang-tidy did not finish (exit status {status}); see {run.log.relative_to(ROOT)}")
    counts = Counts(passed=int(clean.group(1)))
    for line in findings:
        if line.startswith("FINDINGS "):
            counts.fail(f"clang-tidy: {line.removeprefix('FINDINGS ')}; see {run.log.relative_to(ROOT)}")
    return counts


def part_tidy(run: Run) -> Counts:
    return tidy(run)


def property_env(run: Run) -> dict[str, str]:
    return {"RC_PARAMS": "max_success=1000"} if run.long else {}


def part_unit(run: Run) -> Counts:
    return ctest(run, "release", [] if run.long else ["-LE", "long"], property_env(run))


def sanitized(run: Run, preset: str, selection: list[str], env: dict[str, str]) -> Counts:
    """Builds and runs, under a sanitizer, the tests that `selection` (ctest's options) names."""
    run.configure(preset)
    listed = subprocess.run(["ctest", "--test-dir", f"build/{preset}", "--show-only=json-v1", *selection], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    names = [test["name"] for test in json.loads(listed[listed.index("{"):])["tests"]]
    targets = subprocess.run(["ninja", "-C", f"build/{preset}", "-t", "targets", "all"], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout
    known = set(re.findall(r"^([\w-]+): phony$", targets, re.M))
    run.build(preset, [name for name in names if name in known])
    exact = "^(" + "|".join(re.escape(name) for name in names if name in known) + ")$"
    return ctest(run, preset, ["-R", exact], env)


def part_asan(run: Run) -> Counts:
    return sanitized(run, "asan-ubsan", SANITIZED, {
        "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:allocator_may_return_null=0",
        "UBSAN_OPTIONS": "print_stacktrace=1"})


def part_tsan(run: Run) -> Counts:
    suppressions = ROOT / "tests/tsan_suppressions.txt"
    options = "halt_on_error=1:second_deadlock_stack=1"
    if suppressions.is_file():
        options += f":suppressions={suppressions}"
    return sanitized(run, "tsan", [*SANITIZED, "-R", TSAN_TESTS], {"TSAN_OPTIONS": options})


def part_fuzz(run: Run) -> Counts:
    """Each libFuzzer target for a while, from its seeds in tests/fuzz/corpus/NAME."""
    run.configure("fuzz")
    targets = subprocess.run(["ninja", "-C", "build/fuzz", "-t", "targets", "all"], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout
    programs = sorted(set(re.findall(r"^(\S+_fuzz): CXX_EXECUTABLE_LINKER", targets, re.M)))
    if not programs:
        raise PartFailed("no libFuzzer target")
    run.build("fuzz", programs)
    seconds = 600 if run.long else 20
    counts = Counts()

    def fuzz(program: str) -> tuple[str, int]:
        name = pathlib.Path(program).name
        work = run.folder / name
        work.mkdir()
        seeds = ROOT / "tests/fuzz/corpus" / name
        options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                   f"-artifact_prefix={run.folder}/{name}-", *([] if run.long else ["-seed=1"])]
        dictionary = ROOT / "tests/fuzz" / f"{name}.dict"
        if dictionary.is_file():
            options.append(f"-dict={dictionary}")
        folders = [str(work), *([str(seeds)] if seeds.is_dir() else [])]
        return name, run.call(f"build/fuzz/{program}", *options, *folders, limit_s=seconds + 60)

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for name, status in pool.map(fuzz, programs):
            if status == 0:
                counts.passed += 1
            else:
                counts.fail(f"{name}: exit status {status}; the input is in {run.folder.relative_to(ROOT)}/{name}-*")
    return counts


def part_e2e(run: Run) -> Counts:
    return pytest(run, "tests/e2e", "-x" if IN_CI and run.long else "--maxfail=50")


def part_python(run: Run) -> Counts:
    """The wheel, with the compiler's flags and so the ccache of the release build; its tests and clang-tidy."""
    run.check("scripts/python_package.sh", "--config-settings=cmake.define.PM_WERROR=ON")
    counts = pytest(run, "python/tests", *([] if run.long else ["-m", "not long"]), python=PACKAGE_PYTHON)
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "python/src").glob("*.cc"))
    counts.add(tidy(run, "--build", "build/wheel", *sources))
    return counts


@dataclasses.dataclass
class Part:
    name: str
    what: str
    limit_s: float  # without --long
    function: Callable[[Run], Counts]


PARTS = [
    Part("deps", "packages, Python environment, demo model", 600, part_deps),
    Part("build", "release build", 2400, part_build),
    Part("lint", "the tree's rules, clang-format", 900, part_lint),
    Part("tidy", "clang-tidy on every source", 2400, part_tidy),
    Part("unit", "unit, property and golden tests", 1800, part_unit),
    Part("asan", "the same under ASan + UBSan", 2400, part_asan),
    Part("tsan", "what has threads, under TSan", 1500, part_tsan),
    Part("fuzz", "libFuzzer on each parser", 1500, part_fuzz),
    Part("e2e", "the real binary and real clients", 1500, part_e2e),
    Part("python", "the Python package: wheel, tests, clang-tidy", 1500, part_python),
]


def run_part(part: Part, end: float, long: bool) -> Counts:
    limit_s = part.limit_s * (20 if long else 1)
    run = Run(part.name, min(time.monotonic() + limit_s, end), long)
    if time.monotonic() >= end:
        raise PartFailed("not run: the time is over")
    return part.function(run)


def print_table(rows: list[tuple[Part, Counts, float]]) -> None:
    print(f"\n{'part':<6} {'passed':>7} {'failed':>7} {'skipped':>8} {'time':>9}   what")
    for part, counts, seconds in rows:
        minutes = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        mark = "   FAILED" if counts.failed else ""
        print(f"{part.name:<6} {counts.passed:>7} {counts.failed:>7} {counts.skipped:>8} {minutes:>9}   {part.what}{mark}")
    total = int(sum(seconds for _, _, seconds in rows))
    print(f"{'all':<6} {'':>24} {f'{total // 60}:{total % 60:02d}':>9}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    options = parser.parse_args()
    if options.list:
        for part in PARTS:
            print(f"{part.name:<6} {part.what}")
        return 0
    wanted = options.only.split(",") if options.only else [part.name for part in PARTS]
    unknown = set(wanted) - {part.name for part in PARTS}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if {"unit", "e2e"} & set(wanted):  # never tests of an older build
        wanted.append("build")

    LOGS.mkdir(parents=True, exist_ok=True)
    end = float("inf") if options.long else time.monotonic() + TOTAL_LIMIT_S
    rows, total = [], Counts()
    for part in PARTS:
        if part.name not in wanted:
            continue
        print(f"{part.name}: {part.what} ...", flush=True)
        began = time.monotonic()
        try:
            counts = run_part(part, end, options.long)
        except PartFailed as error:
            counts = Counts(failed=1, failures=[str(error)])
        rows.append((part, counts, time.monotonic() - began))
        total.add(counts)
        for failure in counts.failures:
            print(f"  FAILED {failure}", flush=True)
    print_table(rows)
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
