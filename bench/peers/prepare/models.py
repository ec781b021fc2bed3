"""Makes the models that the engines are compared on. Runs in the environment `transformers`:

    models.py DEMO_GGUF OUT_DIR

OUT_DIR/smollm2-bf16: the demo model's weights in bfloat16 (and smollm2-f32, which tests/golden/convert_demo.py makes too);
OUT_DIR/smollm2-w8a8: the same with int8 weights, compressed-tensors; OUT_DIR/llama-1b: random weights of TinyLlama's shape with
the demo model's tokenizer; OUT_DIR/NAME-TYPE.gguf of both: see gguf_files.py.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf_files  # finds tests/golden, too
import torch
from make_tiny_w8a8 import QUANTIZATION
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def make_w8a8(source: pathlib.Path, target: pathlib.Path) -> None:
    """Each row of a projection rounded to the nearest of 255 integers; activations are quantized as they come."""
    tensors = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        scale = weight.float().abs().amax(1, keepdim=True) / 127
        tensors[name] = torch.clamp(torch.round(weight.float() / scale), -127, 127).to(torch.int8)
        tensors[name + "_scale"] = scale.to(torch.bfloat16)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "quantization_config": QUANTIZATION}, indent=1))
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def make_llama_1b(tokenizer_from: pathlib.Path, target: pathlib.Path) -> None:
    """1.1 billion random weights; the vocabulary is the demo model's, so that one workload fits both."""
    config = LlamaConfig(vocab_size=49152, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                         num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=2048,
                         rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=source) * 0.02)
    model.save_pretrained(target)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer_from / name, target)


def make(target: pathlib.Path, maker) -> None:
    """Under another name until it is whole."""
    if target.exists():
        return
    print(f"+ {target.name}", file=sys.stderr, flush=True)
    unfinished = target.with_name("unfinished-" + target.name)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    maker(unfinished)
    unfinished.rename(target)


def main() -> None:
    demo, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    bf16, one_b = out / "smollm2-bf16", out / "llama-1b"
    if not bf16.exists():
        subprocess.run([sys.executable, ROOT / "tests/golden/convert_demo.py", demo, out], check=True)
    make(out / "smollm2-w8a8", lambda target: make_w8a8(bf16, target))
    make(one_b, lambda target: make_llama_1b(bf16, target))
    for model in (bf16, one_b):
        for kind in gguf_files.TYPES:
            name = f"{model.name.removesuffix('-bf16')}-{kind}.gguf"
            make(out / name, lambda target: gguf_files.write(model, demo, kind, target))


if __name__ == "__main__":
    main()
