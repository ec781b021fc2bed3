"""The source archive has all that a build needs."""

import pathlib
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("sdist")
    build = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("pagemill-*.tar.gz")
    return path


def test_it_has_every_source_and_no_test_data(archive):
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    tracked = subprocess.run(["git", "ls-files", "src", "include", "bridge", "cmake", "python/src", "python/pagemill", "scripts",
                              "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"], cwd=ROOT, check=True,
                             capture_output=True, text=True).stdout.split()
    assert len(tracked) > 200 and not set(tracked) - names
    assert not [name for name in names if name.startswith(("tests/", "build/", "python/tests/"))]
    assert archive.stat().st_size < 4 << 20


@pytest.mark.long  # it compiles everything anew
def test_it_builds_by_itself(archive, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(archive)], check=True, cwd=tmp_path)
    done = subprocess.run([python, "-c", "from pagemill import SamplingParams; print(SamplingParams(n=2))"], check=True,
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "SamplingParams(n=2)\n"
