"""A Llama model's GGUF files of one storage type each, from its Hugging Face directory."""

import json
import pathlib
import sys

import gguf
from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType as FileType
from safetensors.torch import load_file

sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "tests/golden"))
from make_tiny_gguf import add_metadata, gguf_name, permute

# Of the layers' weights, of the embedding and the output layer, of the whole: as llama.cpp's own files have them.
TYPES = {"BF16": (Kind.BF16, Kind.BF16, FileType.MOSTLY_BF16), "Q8_0": (Kind.Q8_0, Kind.Q8_0, FileType.MOSTLY_Q8_0),
         "Q4_0": (Kind.Q4_0, Kind.Q8_0, FileType.MOSTLY_Q4_0), "Q4_1": (Kind.Q4_1, Kind.Q8_0, FileType.MOSTLY_Q4_1)}


def copy_tokenizer(writer: gguf.GGUFWriter, demo: pathlib.Path) -> None:
    for name, field in gguf.GGUFReader(demo).fields.items():
        if not name.startswith("tokenizer."):
            continue
        value = field.contents()
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, field.types[0])


def write(model: pathlib.Path, demo: pathlib.Path, type_name: str, target: pathlib.Path) -> None:
    """The tokenizer is the demo model's."""
    layers, embedding, whole = TYPES[type_name]
    config = json.loads((model / "config.json").read_text())
    config.setdefault("rope_theta", config.get("rope_parameters", {}).get("rope_theta"))
    heads = {".q_proj.": config["num_attention_heads"], ".k_proj.": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(target, "llama")
    add_metadata(writer, config)
    writer.add_file_type(whole)
    copy_tokenizer(writer, demo)
    for name, tensor in load_file(model / "model.safetensors").items():
        values, kind = tensor.float().numpy(), Kind.F32
        for part in heads:
            if part in name:
                values = permute(values, heads[part])
        if values.ndim == 2:
            kind = embedding if name in ("model.embed_tokens.weight", "lm_head.weight") else layers
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
