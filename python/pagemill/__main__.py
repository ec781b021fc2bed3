"""`python -m pagemill` is `pagemill`."""

from .native import main

main()
