#!/usr/bin/env python3
"""Records what Transformers computes with the demo model, for model_golden_test.cc.

    make_model_goldens.py MODELS_DIR [--out DIR] [--prompts FILE.jsonl] [--text FILE]

MODELS_DIR is what convert_demo.py wrote. Writes to OUT (default: models/ beside this script):

  smollm2_f32.golden   per position of every prompt: the 20 highest logits, 64 fixed columns, logsumexp; then a greedy
                       continuation of 32 tokens (EOS does not end it) with its log-probabilities and the gap between
                       the two highest logits at each step. `meta.float64_difference` says how far the float32 logits
                       are from the same model in float64: the oracle's own share of the tolerance.
  smollm2_bf16.golden  the bfloat16 model's greedy continuation and its five highest tokens at each step, and the five
                       highest at each prompt position
  smollm2_ppl.golden   token ids of a fixed text in windows of 512, and the float32 negative log-likelihood of each

--prompts: JSON lines with "text", "messages" or "turns" (the first 64, evenly spaced; default models/prompts.jsonl).
--text: the first half of the perplexity text (default: CC0 1.0 from Debian's /usr/share/common-licenses, which
dedicates itself to the public domain); the second half the oracle samples itself from the prompts with a fixed seed.

Needs torch and transformers; runs offline, on the CPU, about ten minutes on one core.
"""
import argparse
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import golden_format

HERE = pathlib.Path(__file__).resolve().parent
NUM_PROMPTS = 64
MAX_PROMPT_TOKENS = 256
TOP = 20
NUM_COLUMNS = 64
CONTINUATION = 32
BF16_TOP = 5
WINDOW = 512
NUM_WINDOWS = 8


def load_prompts(path: pathlib.Path, tokenizer) -> list:
    """Token ids of NUM_PROMPTS prompts."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if len(rows) < NUM_PROMPTS:
        raise SystemExit(f"{path}: {len(rows)} prompts, need {NUM_PROMPTS}")
    rows = [rows[i * len(rows) // NUM_PROMPTS] for i in range(NUM_PROMPTS)]
    prompts = []
    for row in rows:
        if "text" in row:
            text = row["text"]
        else:
            messages = row.get("messages") or [{"role": "user", "content": row["turns"][0]}]
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompts.append(tokenizer.encode(text, add_special_tokens=False)[:MAX_PROMPT_TOKENS])
    return prompts


def load(directory: pathlib.Path, dtype):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def greedy(model, prompt: list) -> tuple:
    """Logits at every prompt position [len, vocab], and at every step of the continuation [CONTINUATION, vocab]."""
    output = model(torch.tensor([prompt]), use_cache=True)
    prompt_logits = output.logits[0].double().numpy()
    steps, tokens = [prompt_logits[-1]], []
    while True:
        tokens.append(int(steps[-1].argmax()))
        if len(tokens) == CONTINUATION:
            return prompt_logits, np.stack(steps), tokens
        output = model(torch.tensor([[tokens[-1]]]), past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits[0, -1].double().numpy())


def top(logits: np.ndarray, count: int) -> np.ndarray:
    """Ids of the highest logits, descending, the lower id first where equal."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]


def logsumexp(logits: np.ndarray) -> np.ndarray:
    peak = logits.max(-1)
    return peak + np.log(np.exp(logits - peak[..., None]).sum(-1))


def float32_golden(model, prompts: list, out: pathlib.Path, meta: dict) -> None:
    columns = np.sort(np.random.default_rng(0).choice(model.config.vocab_size, NUM_COLUMNS, replace=False))
    parts = {name: [] for name in ("top_ids", "top_logits", "columns", "lse", "tokens", "logprobs", "gaps")}
    double = load(pathlib.Path(meta["directory"]), torch.float64)
    difference = 0.0
    for prompt in prompts:
        logits, steps, tokens = greedy(model, prompt)
        exact = double(torch.tensor([prompt])).logits[0].numpy()
        difference = max(difference, float(np.abs(exact - logits).max()))
        ids = top(logits, TOP)
        parts["top_ids"].append(ids)
        parts["top_logits"].append(np.take_along_axis(logits, ids, -1))
        parts["columns"].append(logits[:, columns])
        parts["lse"].append(logsumexp(logits))
        best = np.take_along_axis(steps, top(steps, 2), -1)
        parts["tokens"].append(tokens)
        parts["logprobs"].append(best[:, 0] - logsumexp(steps))
        parts["gaps"].append(best[:, 0] - best[:, 1])
    del double
    golden_format.write(
        out / "smollm2_f32.golden",
        {"oracle": meta["oracle"], "dtype": "float32", "float64_difference": difference},
        {
            "prompt_tokens": ("u16", np.concatenate(prompts)),
            "prompt_offsets": ("i32", np.cumsum([0] + [len(p) for p in prompts])),
            "top_ids": ("u16", np.concatenate(parts["top_ids"])),
            "top_logits": ("f32", np.concatenate(parts["top_logits"])),
            "column_ids": ("i32", columns),
            "column_logits": ("f32", np.concatenate(parts["columns"])),
            "logsumexp": ("f32", np.concatenate(parts["lse"])),
            "continuation": ("u16", np.stack(parts["tokens"])),
            "continuation_logprobs": ("f32", np.stack(parts["logprobs"])),
            "continuation_gaps": ("f32", np.stack(parts["gaps"])),
        },
    )
    print("float32: oracle's own distance from float64", difference)


def bfloat16_golden(model, prompts: list, out: pathlib.Path, meta: dict) -> None:
    prompt_top, step_top, continuation = [], [], []
    for prompt in prompts:
        logits, steps, tokens = greedy(model, prompt)
        prompt_top.append(top(logits, BF16_TOP))
        step_top.append(top(steps, BF16_TOP))
        continuation.append(tokens)
    golden_format.write(
        out / "smollm2_bf16.golden",
        {"oracle": meta["oracle"], "dtype": "bfloat16"},
        {
            "prompt_tokens": ("u16", np.concatenate(prompts)),
            "prompt_offsets": ("i32", np.cumsum([0] + [len(p) for p in prompts])),
            "prompt_top_ids": ("u16", np.concatenate(prompt_top)),
            "continuation": ("u16", np.stack(continuation)),
            "continuation_top_ids": ("u16", np.stack(step_top)),
        },
    )


def sample(model, prompts: list, count: int) -> list:
    """At least `count` tokens of the oracle's own prose, at temperature 1 with a fixed seed."""
    torch.manual_seed(20)
    prose = [p for p in prompts if 8 <= len(p) <= 64]
    tokens = []
    for prompt in prose[:: max(1, len(prose) // 8)]:
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=True,
            top_k=0,
            temperature=1.0,
            min_new_tokens=count // 7,
            max_new_tokens=count // 7,
        )
        tokens += output[0].tolist()
    if len(tokens) < count:
        raise SystemExit(f"sampled {len(tokens)} tokens, need {count}")
    return tokens[:count]


def perplexity_golden(model, tokenizer, prompts: list, text: str, out: pathlib.Path, meta: dict) -> None:
    half = WINDOW * NUM_WINDOWS // 2
    ids = tokenizer.encode(text, add_special_tokens=False)
    written = ids[: min(half, len(ids) // WINDOW * WINDOW)]
    windows = np.array(written + sample(model, prompts, WINDOW * NUM_WINDOWS - len(written))).reshape(-1, WINDOW)
    nll = []
    for window in windows:
        logits = model(torch.tensor(window[None].tolist())).logits[0, :-1].double().numpy()
        chosen = np.take_along_axis(logits, window[1:, None], -1)[:, 0]
        nll.append((logsumexp(logits) - chosen).sum())
    golden_format.write(
        out / "smollm2_ppl.golden",
        {"oracle": meta["oracle"], "dtype": "float32", "predicted_per_window": WINDOW - 1},
        {"tokens": ("u16", windows), "nll": ("f64", nll)},
    )
    print("perplexity by window", [round(float(np.exp(n / (WINDOW - 1))), 3) for n in nll])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "models")
    parser.add_argument("--prompts", type=pathlib.Path, default=HERE / "models" / "prompts.jsonl")
    parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path("/usr/share/common-licenses/CC0-1.0"))
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    oracle = f"transformers {transformers.__version__}, torch {torch.__version__}"
    meta = {"oracle": oracle, "directory": str(args.models / "smollm2-f32")}

    tokenizer = AutoTokenizer.from_pretrained(args.models / "smollm2-f32")
    prompts = load_prompts(args.prompts, tokenizer)
    print(f"{len(prompts)} prompts, {sum(map(len, prompts))} tokens, longest {max(map(len, prompts))}")
    model = load(args.models / "smollm2-f32", torch.float32)
    float32_golden(model, prompts, args.out, meta)
    perplexity_golden(model, tokenizer, prompts, args.text.read_text(), args.out, meta)
    del model
    bfloat16_golden(load(args.models / "smollm2-bf16", torch.bfloat16), prompts, args.out, meta)


if __name__ == "__main__":
    main()
