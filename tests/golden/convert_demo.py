#!/usr/bin/env python3
"""Turns the demo model's GGUF file into Hugging Face directories, in float32 and in bfloat16.

    convert_demo.py SmolLM2-135M-Instruct.Q4_1.gguf OUT_DIR

writes OUT_DIR/smollm2-f32 and OUT_DIR/smollm2-bf16: config.json, generation_config.json, model.safetensors,
tokenizer.json, tokenizer_config.json and chat_template.jinja. The weights are the file's, dequantized by Transformers;
the float32 directory holds exactly the numbers that the quantized blocks mean.

Two things that Transformers derives wrongly from the file are put right:
  * tokenizer.json lacks the step that splits digits. The file's `tokenizer.ggml.pre` is "smollm", whose first step takes
    each digit alone; without it "a  12" becomes "a", " ", " 12" instead of "a", "  ", "1", "2".
  * config.json would keep `quantization_config`, although nothing is quantized any more.

Needs torch, transformers, accelerate and gguf; runs offline.
"""
import argparse
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM


def add_digit_split(tokenizer_json: pathlib.Path) -> None:
    """Puts Digits(individual_digits) before the byte-level pre-tokenizer, as SmolLM2's own tokenizer.json has it."""
    content = json.loads(tokenizer_json.read_text())
    byte_level = content["pre_tokenizer"]
    if byte_level["type"] != "ByteLevel":
        raise SystemExit(f"{tokenizer_json}: pre_tokenizer is {byte_level['type']}, expected ByteLevel alone")
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
    }
    tokenizer_json.write_text(json.dumps(content, ensure_ascii=False, indent=2))


def check_tokenizer(directory: pathlib.Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    pieces = tokenizer.tokenize("a  12")
    if pieces != ["a", "ĠĠ", "1", "2"]:
        raise SystemExit(f"{directory}: 'a  12' splits into {pieces}")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    if not prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"):
        raise SystemExit(f"{directory}: the chat template renders {prompt!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    folder, name = args.gguf.resolve().parent, args.gguf.name

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # A plain model with the same numbers: Transformers refuses to save what it loaded from GGUF.
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict(), strict=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config

    f32, bf16 = args.out / "smollm2-f32", args.out / "smollm2-bf16"
    for directory, dtype in ((f32, torch.float32), (bf16, torch.bfloat16)):
        model.to(dtype).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        add_digit_split(directory / "tokenizer.json")
        check_tokenizer(directory)
        print(directory, sorted(os.listdir(directory)))


if __name__ == "__main__":
    main()
