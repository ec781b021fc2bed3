"""The golden files' format, written from Python; golden_reader.h reads it in C++.

    bytes 0-7    "PMGOLD01"
    bytes 8-15   length of the header in bytes, unsigned, little-endian
    header       JSON: {"meta": {...}, "arrays": {name: {"dtype", "shape", "offset"}}}, padded with spaces so that the
                 data begin at a multiple of 16 bytes
    data         the arrays, little-endian, row-major; "offset" counts bytes from the beginning of the data and is a
                 multiple of 16

dtype is one of u16, i32, f32, f64.
"""
import json
import pathlib
import struct

import numpy as np

MAGIC = b"PMGOLD01"
DTYPES = {"u16": "<u2", "i32": "<i4", "f32": "<f4", "f64": "<f8"}


def write(path: pathlib.Path, meta: dict, arrays: dict) -> None:
    """`arrays`: name -> (dtype name, values). Refuses values that the dtype can't hold."""
    entries, blobs, offset = {}, [], 0
    for name, (dtype, values) in arrays.items():
        values = np.asarray(values)
        stored = np.ascontiguousarray(values.astype(DTYPES[dtype]))
        if dtype in ("u16", "i32") and not np.array_equal(stored, values):
            raise ValueError(f"{path}: {name} does not fit {dtype}")
        if dtype in ("f32", "f64") and not np.isfinite(stored).all():
            raise ValueError(f"{path}: {name} is not finite")
        blob = stored.tobytes()
        blob += b"\0" * (-len(blob) % 16)
        entries[name] = {"dtype": dtype, "shape": list(stored.shape), "offset": offset}
        blobs.append(blob)
        offset += len(blob)
    header = json.dumps({"meta": meta, "arrays": entries}, separators=(",", ":")).encode()
    header += b" " * (-(16 + len(header)) % 16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(MAGIC + struct.pack("<Q", len(header)) + header + b"".join(blobs))


def read(path: pathlib.Path) -> tuple:
    """(meta, {name: array})."""
    content = path.read_bytes()
    if content[:8] != MAGIC:
        raise ValueError(f"{path}: not a golden file")
    (length,) = struct.unpack_from("<Q", content, 8)
    header = json.loads(content[16 : 16 + length])
    arrays = {}
    for name, entry in header["arrays"].items():
        count = int(np.prod(entry["shape"], dtype=np.int64))
        start = 16 + length + entry["offset"]
        arrays[name] = np.frombuffer(content, DTYPES[entry["dtype"]], count, start).reshape(entry["shape"])
    return header["meta"], arrays
