"""The installed package: types, programs, native libraries."""

import ast
import importlib.metadata
import importlib.resources
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import pagemill
from pagemill.entrypoints.openai.api_server import serve_arguments
from pagemill.native import PROGRAM

FOLDER = pathlib.Path(pagemill.__file__).parent


def test_it_is_the_installed_package():
    assert "site-packages" in str(FOLDER)
    assert pagemill.__version__ == importlib.metadata.version("pagemill")


def test_stubs_know_every_field():
    assert (FOLDER / "py.typed").is_file()
    stub = (FOLDER / "_engine.pyi").read_text()
    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}
    init = next(node for node in classes["SamplingParams"].body if getattr(node, "name", "") == "__init__")
    names = [argument.arg for argument in init.args.kwonlyargs]
    assert names[:3] == ["n", "best_of", "temperature"] and "early_stopping" in names
    assert set(names) <= set(dir(pagemill.SamplingParams))
    for name in names:
        assert name == "output_kind" or f"\n{name}: " in pagemill.SamplingParams.__doc__


def test_a_type_checker_accepts_what_runs_and_refuses_what_does_not(tmp_path):
    good = tmp_path / "good.py"
    good.write_text("import numpy as np\nfrom pagemill import LLM, SamplingParams\n"
                    "llm = LLM('demo', max_model_len=5)\n"
                    "outs = llm.generate(['a', 'b'], SamplingParams(n=2, stop=['x'], seed=None))\n"
                    "outs = llm.generate([1, 2]) + llm.generate(np.array([1])) + llm.generate({'prompt': 'b'})\n"
                    "text: str = outs[0].outputs[0].text\n"
                    "ids: list[int] = llm.get_tokenizer().encode('a')\n")
    bad = tmp_path / "bad.py"
    bad.write_text("from pagemill import LLM, SamplingParams\n"
                   "SamplingParams(n='two')\n"
                   "LLM(model=3)\n"
                   "LLM('demo').generate('a')[0].output\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", sys.executable, "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run([*command, str(good)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*command, str(bad)], capture_output=True, text=True)
    assert re.findall(r"bad.py:(\d): error", done.stdout) == ["2", "3", "4"], done.stdout


def test_the_binaries_bring_their_libraries():
    """What they need of the system is glibc's and gcc's runtime."""
    own = {path.name for path in (FOLDER / "lib").iterdir()}
    for binary in [PROGRAM, *FOLDER.glob("_engine*.so"), *(FOLDER / "lib").iterdir()]:
        needed = re.findall(r"NEEDED\s+(\S+)", subprocess.run(["objdump", "-p", str(binary)], capture_output=True,
                                                              text=True, check=True).stdout)
        assert needed
        for library in needed:
            assert library in own or re.match(r"(lib(c|m|stdc\+\+|gcc_s)|ld-linux-x86-64)\.so", library), (binary, library)


@pytest.mark.parametrize("command", [[str(pathlib.Path(sys.executable).with_name("pagemill"))],
                                     [sys.executable, "-m", "pagemill"]])
def test_the_program_runs_the_native_binary(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pagemill.__version__


def test_vllms_flags_are_mapped(capsys):
    assert serve_arguments(["--model", "demo", "--port", "1", "--max-model-len=9", "--tensor-parallel-size", "1",
                            "--gpu-memory-utilization=0.9", "--enable-prefix-caching", "--no-enable-prefix-caching",
                            "--kv-cache-memory-bytes=5"]) == [
        "serve", "demo", "--served-model-name", "demo", "--port", "1", "--max-model-len=9", "--no-prefix-caching",
        "--kv-cache-memory=5"]
    assert "--gpu-memory-utilization changes nothing" in capsys.readouterr().err
    assert serve_arguments(["--model=m", "--served-model-name", "x"]) == ["serve", "m", "--served-model-name", "x"]
    for bad in (["--port", "1"], ["--model"], ["--model", "m", "--tensor-parallel-size", "2"]):
        with pytest.raises(SystemExit, match="expected"):
            serve_arguments(bad)


def test_the_api_server_serves(tiny_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "pagemill.entrypoints.openai.api_server", "--model", tiny_path,
                               "--port", str(port), "--dtype", "auto"], stderr=subprocess.PIPE, text=True)
    try:
        answer = None
        end = time.monotonic() + 60
        while answer is None and server.poll() is None and time.monotonic() < end:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read().decode()
            except OSError:
                time.sleep(0.05)
        assert answer is not None and tiny_path in answer, server.poll()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert server.returncode == 0
