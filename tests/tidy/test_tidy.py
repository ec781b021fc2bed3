"""clang-tidy's part can fail: scripts/tidy.py on small broken trees."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

GOOD = "namespace pagemill {\nint twice(int x) { return 2 * x; }\n}  // namespace pagemill\n"
BAD = GOOD.replace("twice", "Twice")


@pytest.fixture
def tree(tmp_path):
    """A tree with our .clang-tidy; add(name, text) puts a file into it and, if it is a source, among the commands."""
    shutil.copy(ROOT / ".clang-tidy", tmp_path)
    (tmp_path / "src").mkdir()
    commands = []

    def add(name: str, text: str) -> str:
        path = tmp_path / "src" / name
        path.write_text(text, encoding="utf-8")
        if name.endswith(".cc"):
            # A flag that only gcc knows, as ours have.
            command = f"c++ -std=c++20 -Werror -Wno-maybe-uninitialized -c {path}"
            commands.append({"directory": str(tmp_path), "file": str(path), "command": command})
            (tmp_path / "compile_commands.json").write_text(json.dumps(commands), encoding="utf-8")
        return str(path)

    return add


def tidy(tree_path: pathlib.Path, *files: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, ROOT / "scripts/tidy.py", "--build", tree_path, "--jobs", "2", *files],
                          capture_output=True, text=True)
    return done.returncode, done.stdout.strip().splitlines()


def test_a_finding_fails_and_names_its_file(tree, tmp_path):
    good, bad = tree("good.cc", GOOD), tree("bad.cc", BAD)
    status, lines = tidy(tmp_path, good, bad)
    assert status == 1
    assert lines[0] == f"FINDINGS {bad}" and lines[-1] == "1 clean, 1 with findings"
    assert any("readability-identifier-naming" in line for line in lines)
    assert tidy(tmp_path, good) == (0, ["1 clean, 0 with findings"])


def test_headers_count(tree, tmp_path):
    tree("bad.h", BAD)
    status, lines = tidy(tmp_path, tree("includes.cc", '#include "bad.h"\n'))
    assert status == 1 and any("bad.h" in line and "Twice" in line for line in lines)


def test_what_does_not_compile_is_a_finding(tree, tmp_path):
    status, _ = tidy(tmp_path, tree("broken.cc", "int x = ;\n"))
    assert status == 1


def test_a_file_without_a_command_takes_its_neighbours(tree, tmp_path):
    """As the fuzzers do; a concept shows that the standard came along."""
    tree("known.cc", GOOD)
    fuzzer = tmp_path / "src/known_fuzz.cc"
    fuzzer.write_text("template <typename T>\nconcept Small = sizeof(T) < 8;\n", encoding="utf-8")
    assert tidy(tmp_path, str(fuzzer)) == (0, ["1 clean, 0 with findings"])


def test_without_a_build_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "scripts/tidy.py", "--build", tmp_path, "x.cc"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "make build" in done.stderr
