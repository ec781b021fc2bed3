"""Fixtures: the installed package, on the demo model and on tiny models of random weights."""

import pathlib

import pytest

from pagemill import LLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/golden/tiny"


@pytest.fixture(scope="session")
def tiny_path() -> str:
    """A model with a tokenizer and a chat template, whose output is noise."""
    return str(TINY / "chat")


@pytest.fixture(scope="session")
def llm() -> LLM:
    return LLM(model="demo", max_model_len=2048)


@pytest.fixture
def tiny(tiny_path) -> LLM:
    return LLM(model=tiny_path)
