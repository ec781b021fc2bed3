"""Runs every check of scripts/lint.py on the tree, and shows on small broken trees that each check can fail."""

import importlib.util
import json
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("lint", ROOT / "scripts/lint.py")
lint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lint)

GOOD_HEADER = "// What it is for.\n#pragma once\n"


@pytest.mark.parametrize("name", lint.CHECKS)
def test_tree(name):
    problems = lint.CHECKS[name](lint.load_tree())
    assert not problems, "\n" + "\n".join(problems)


@pytest.fixture
def broken(tmp_path):
    """Makes a tree of the given files, under the real rules."""

    def make(files: dict[str, str | bytes]):
        for path, content in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return lint.Tree(tmp_path, lint.load_tree().rules, sorted(files))

    return make


def one(problems, *words):
    assert len(problems) == 1, problems
    assert all(word in problems[0] for word in words), problems[0]


def test_every_check_is_proved_to_fail_below():
    proofs = [name for name in globals() if name.startswith("test_")]
    missing = [check for check in lint.CHECKS if not any(proof.startswith(f"test_{check}_") for proof in proofs)]
    assert not missing


def test_includes_against_the_table(broken):
    files = {"src/base/a.h": GOOD_HEADER, "src/scheduler/b.h": GOOD_HEADER + '#include "base/a.h"\n',
             "src/tensor/c.h": GOOD_HEADER + '#include "scheduler/b.h"\n'}
    one(lint.check_includes(broken(files)), "src/tensor/c.h:3", "scheduler/b.h")


def test_includes_of_one_header_only(broken):
    rules = {"src/kv/kv_spec.h": GOOD_HEADER, "src/kv/block_pool.h": GOOD_HEADER,
             "src/layers/a.cc": '#include "kv/kv_spec.h"\n#include "kv/block_pool.h"\n'}
    one(lint.check_includes(broken(rules)), "src/layers/a.cc:2")


def test_includes_of_no_file(broken):
    one(lint.check_includes(broken({"src/base/a.cc": '#include "base/gone.h"\n'})), "base/gone.h")


def test_includes_in_an_unknown_folder(broken):
    one(lint.check_includes(broken({"src/misc/a.cc": ""})), "src/misc")


def test_includes_allow_tests_more(broken):
    assert not lint.check_includes(broken({"src/scheduler/b.h": GOOD_HEADER,
                                           "src/tensor/c_test.cc": '#include "scheduler/b.h"\n'}))


def test_includes_table_points_downwards():
    table = lint.load_tree().rules["includes"]
    reached = {}

    def below(folder, path):
        assert folder not in path, f"a circle: {' -> '.join([*path, folder])}"
        if folder not in reached:
            names = [name.split("/")[0] for name in table[folder] if name != "*"]
            reached[folder] = set(names).union(*(below(name, [*path, folder]) for name in names))
        return reached[folder]

    for folder in table:
        below(folder, [])
    assert "tensor" not in reached["scheduler"] and "request" not in reached["kernels"]


def test_public_headers_stand_alone(broken):
    files = {"include/pagemill/a.h": '// A.\n#pragma once\n#include "scheduler/scheduler.h"\n'}
    one(lint.check_public_headers(broken(files)), "scheduler/scheduler.h")


def test_size_in_lines(broken):
    one(lint.check_size(broken({"src/base/a.cc": "int x;\n" * 1001})), "1001 lines")


def test_size_in_bytes(broken):
    one(lint.check_size(broken({"tests/golden/a.bin": b"\0" * 8_388_609})), "8388609 bytes")


@pytest.mark.parametrize("path, line", [
    ("src/base/a.cc", "// " + "TO" "DO: later"),
    ("docs/a.md", "see /" "work/main/x"),
    ("scripts/a.sh", "cat /tmp" "/w/x"),
    ("src/kv/a.cc", "#include <thread>"),
    ("src/scheduler/a.cc", "#include <chrono>"),
    ("src/runner/a.cc", "std::shared_ptr<int> p;"),
    ("src/server/a.cc", "#include <immintrin.h>"),
    ("src/engine/a.cc", "#include <boost/asio.hpp>"),
    ("src/cli/a.cc", "#include <format>"),
])
def test_banned_text(broken, path, line):
    one(lint.check_banned(broken({path: line + "\n"})), f"{path}:1")


def test_banned_leaves_work_alone(broken):
    assert not lint.check_banned(broken({"docs/a.md": "the engine's framework/ and work/sharing, http://x/y\n"}))


def test_headers_without_pragma_once(broken):
    one(lint.check_headers(broken({"src/base/a.h": "// A.\n"})), "pragma once")


def test_headers_without_a_first_comment(broken):
    one(lint.check_headers(broken({"src/base/a.h": "#pragma once\n"})), "a.h:1")


def test_dead_headers_are_found(broken):
    files = {"src/base/a.h": GOOD_HEADER, "src/base/b.h": GOOD_HEADER, "src/base/a.cc": '#include "base/a.h"\n'}
    one(lint.check_dead_headers(broken(files)), "src/base/b.h")


def database(entries):
    return {"build/release/compile_commands.json": json.dumps(entries)}


def test_dead_sources_are_found(broken, tmp_path):
    files = {"src/base/a.cc": "", "src/base/b.cc": "", "src/base/c_fuzz.cc": "",
             "src/base/CMakeLists.txt": "pm_library(base)",
             **database([{"file": str(tmp_path / "src/base/a.cc"), "directory": str(tmp_path), "command": "c++"}])}
    one(lint.check_dead_sources(broken(files)), "src/base/b.cc")


def test_isa_symbols_that_leak(broken, tmp_path):
    source = ("#include <vector>\nnamespace pagemill::avx2 {\n"
              "void fine(std::vector<int>& v);\nvoid fine(std::vector<int>& v) { v.push_back(1); }\n}\n")
    tree = broken({"src/kernels/k_avx2.cc": source,
                   **database([{"file": str(tmp_path / "src/kernels/k_avx2.cc"), "directory": str(tmp_path),
                                "command": "c++ -mavx2 -O0 -o k.o -c src/kernels/k_avx2.cc"}])})
    assert "not built" in lint.check_isa_symbols(tree)[0]
    subprocess.run(["c++", "-std=c++20", "-mavx2", "-O0", "-o", "k.o", "-c", "src/kernels/k_avx2.cc"], cwd=tmp_path,
                   check=True)
    problems = lint.check_isa_symbols(tree)
    assert any("std::vector" in problem for problem in problems)
    assert not any("pagemill::avx2::fine" in problem for problem in problems)


def test_isa_symbols_need_an_object_to_check(broken):
    one(lint.check_isa_symbols(broken({"src/kernels/k.cc": "", **database([])})), "no object")


def test_format_differences(broken):
    files = {"src/base/a.cc": "int  x ;\n", ".clang-format": (ROOT / ".clang-format").read_text()}
    one(lint.check_format(broken(files)), "src/base/a.cc")


def test_scripts_that_do_not_parse(broken):
    problems = lint.check_scripts(broken({"scripts/a.sh": "if true\n", "scripts/b.py": "def (:\n"}))
    assert len(problems) == 2


def test_scripts_that_go_on_after_an_error(broken, tmp_path):
    tree = broken({"scripts/a.sh": "#!/bin/sh\nfalse\n"})
    (tmp_path / "scripts/a.sh").chmod(0o755)
    one(lint.check_scripts(tree), "pipefail")


def test_links_that_lead_nowhere(broken):
    one(lint.check_links(broken({"README.md": "[a](docs/gone.md) [b](https://example.org) [c](#here)\n"})), "gone.md")
