"""The `pagemill` program that the package brings."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

PROGRAM = pathlib.Path(__file__).with_name("bin") / "pagemill"


def run(arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by the program."""
    os.execv(PROGRAM, ["pagemill", *arguments])


def main() -> NoReturn:
    run(sys.argv[1:])
