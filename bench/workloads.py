"""Workloads for `pagemill bench --workload`: lengths and tokens from a seed."""

import json
import math
import pathlib
import random
import statistics


def lognormal_lengths(source: random.Random, count: int, mean: float, sigma: float, low: int, high: int) -> list[int]:
    """Clipped to [low, high], with this mean: the location by bisection over the same normal numbers."""
    normals = [source.gauss(0, 1) for _ in range(count)]

    def sample(location: float) -> list[int]:
        return [min(high, max(low, round(math.exp(location + sigma * z)))) for z in normals]

    below, above = 0.0, math.log(high) + 1
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if statistics.fmean(sample(middle)) < mean else (below, middle)
    return sample(below)


def write_workload(path: pathlib.Path, items: list[tuple[list[int], int]]) -> pathlib.Path:
    """For `pagemill bench --workload`: prompts and numbers of output tokens."""
    path.write_text("".join(json.dumps({"prompt_token_ids": prompt, "output_len": output}) + "\n"
                            for prompt, output in items))
    return path


def random_tokens(source: random.Random, count: int) -> list[int]:
    return [source.randrange(100, 40_000) for _ in range(count)]
