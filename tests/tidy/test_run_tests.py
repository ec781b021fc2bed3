"""scripts/run_tests.py: which skips it lets pass."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import run_tests  # noqa: E402

LISTED = run_tests.allowed_skips("# a comment\n\nSuite.Test; lacks AVX-512; avx2 avx512f\n")
OLD, NEW = frozenset({"sse2", "avx2"}), frozenset({"avx2", "avx512f", "fma"})


@pytest.mark.parametrize("name, message, flags, allowed", [
    ("Suite.Test", "a.cc:3 this machine lacks AVX-512", OLD, True),
    ("Suite.Test", "a.cc:3 this machine lacks AVX-512", NEW, False),  # it doesn't
    ("Suite.Test", "no model", OLD, False),
    ("Suite.Test", "", OLD, False),
    ("Suite.Test2", "this machine lacks AVX-512", OLD, False),
    ("Other.avx512", "this machine lacks AVX-512", OLD, False),
])
def test_a_skip_needs_its_name_its_words_and_the_cpu(name, message, flags, allowed):
    assert run_tests.may_skip(name, message, LISTED, flags) == allowed


@pytest.mark.parametrize("line", ["Suite.Test", "Suite.Test; words", "Suite.Test; words;", "a; b; c; d", "*; ; avx2"])
def test_a_bad_line_is_an_error(line):
    with pytest.raises(ValueError, match="allowed_skips.txt:1"):
        run_tests.allowed_skips(line)


def test_flags_are_read_of_this_machine():
    assert "sse2" in run_tests.cpu_flags(pathlib.Path("/proc/cpuinfo").read_text())
    assert run_tests.cpu_flags("processor : 0\nflags\t\t: fpu avx2\n") == {"fpu", "avx2"}


def test_the_committed_list_names_tests_that_exist():
    sources = "".join(path.read_text() for pattern in ("src/**/*_test.cc", "tests/**/*_test.cc", "tests/e2e/*.py")
                      for path in ROOT.glob(pattern))
    entries = run_tests.allowed_skips((ROOT / "tests/allowed_skips.txt").read_text())
    assert entries
    for entry in entries:
        suite, test = entry.name.split("[")[0].rsplit(".", 1)
        assert f"TEST({suite}, {test})" in sources or f"def {test}(" in sources, entry.name


def test_a_junit_file_is_judged_by_its_skips(tmp_path, monkeypatch):
    junit = tmp_path / "junit.xml"
    junit.write_text("""<testsuites><testsuite>
        <testcase classname="A" name="passes"/>
        <testcase classname="A" name="fails"><failure message="x"/></testcase>
        <testcase classname="A" name="skips"><skipped message="avx512: not here"/></testcase>
        <testcase classname="A" name="DISABLED_x" status="notrun"/>
        </testsuite></testsuites>""")
    monkeypatch.setattr(run_tests, "IN_CI", False)
    assert totals(run_tests.count_junit(junit)) == (1, 1, 2)
    monkeypatch.setattr(run_tests, "IN_CI", True)
    counts = run_tests.count_junit(junit)
    assert totals(counts) == (1, 3, 0)
    assert any("A.skips" in failure and "not here" in failure for failure in counts.failures)


def totals(counts):
    return counts.passed, counts.failed, counts.skipped
