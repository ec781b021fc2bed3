#!/usr/bin/env python3
"""Writes dequant/<FORMAT>.bin: random blocks of each quantized format and what they stand for.

Needs the PyPI packages `gguf` and `numpy`; the tests only read the files.
Layout, little-endian: u32 count of blocks, the blocks' bytes, then their elements as f32.
"""

import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

BLOCKS = {"Q8_0": 16, "Q4_0": 16, "Q4_1": 16, "Q4_K": 6, "Q5_K": 6, "Q6_K": 6}
# Offsets of the f16 fields within a block: random bytes there would be NaN or infinite at times.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def main() -> None:
    rng = np.random.default_rng(20240601)
    folder = pathlib.Path(__file__).parent / "dequant"
    folder.mkdir(exist_ok=True)
    for name, count in BLOCKS.items():
        kind = GGMLQuantizationType[name]
        _, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
        for offset in HALVES[name]:
            values = rng.normal(scale=0.05, size=count).astype(np.float16)
            values[0] = np.float16(2.0**-20)  # subnormal
            blocks[:, offset : offset + 2] = values.view(np.uint8).reshape(count, 2)
        floats = quants.dequantize(blocks, kind).astype("<f4")
        data = struct.pack("<I", count) + blocks.tobytes() + floats.tobytes()
        (folder / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
