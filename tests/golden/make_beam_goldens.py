#!/usr/bin/env python3
"""Beam searches by Transformers on a tiny random-weights model, in float32.

    make_beam_goldens.py [--out DIR]

Writes OUT/cases.json (default: beams/ beside this script): for each case a prompt, the arguments of generate(), and
the hypotheses, best first, with their scores. Widths 1 to 8; one, several and no end tokens; logits processors. End tokens are
chosen among those that a search without any finds, so that searches end early and late.

A case is kept only if float64 finds the same hypotheses in the same order: where they differ the scores are too close
for float32 to say. Width 1 is greedy search in Transformers; its score is computed here.

Needs torch and transformers; runs offline in three minutes.
"""
import argparse
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "gqa"
NUM_CASES = 160
MAX_NEW_TOKENS = 24


def search(model, case: dict) -> list:
    """[(score, tokens)] of a case, best first."""
    prompt = torch.tensor([case["prompt"]])
    ends = case["end_token_ids"]
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        num_beams=case["width"],
        num_return_sequences=case["n"],
        length_penalty=case["length_penalty"],
        early_stopping=case["early_stopping"],
        max_new_tokens=case["max_tokens"],
        min_new_tokens=case["min_tokens"] or None,
        repetition_penalty=case["repetition_penalty"],
        eos_token_id=ends or None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = []
    for i, sequence in enumerate(output.sequences[:, prompt.shape[1] :].tolist()):
        stops = [k + 1 for k, token in enumerate(sequence) if token in ends]
        tokens = sequence[: stops[0]] if stops else sequence
        if case["width"] > 1:
            score = output.sequences_scores[i].item()
        else:
            logprobs = [torch.log_softmax(s[0], -1)[t].item() for s, t in zip(output.scores, tokens)]
            score = sum(logprobs) / len(tokens) ** case["length_penalty"]
        rows.append((score, tokens))
    return rows


def draw_case(random: np.random.Generator, model, index: int) -> dict:
    width = 1 + index % 8
    case = {
        "prompt": random.integers(3, 100, int(random.choice([1, 5, 16, 17, 40]))).tolist(),
        "width": width,
        "n": int(random.integers(1, width + 1)),
        "length_penalty": float(random.choice([-1.0, 0.0, 0.5, 1.0, 1.0, 2.0])),
        "early_stopping": [False, True, "never"][index // 8 % 3],
        "max_tokens": int(random.choice([1, 2, 7, MAX_NEW_TOKENS])),
        "min_tokens": 0,
        "repetition_penalty": 1.0,
        "end_token_ids": [],
    }
    if index % 5 == 4 and width > 1:  # the score of width 1 above knows no processors
        case["repetition_penalty"] = 1.5
    found = sorted({t for _, tokens in search(model, case) for t in tokens})
    count = int(random.integers(0, min(len(found), 4) + 1))
    case["end_token_ids"] = random.choice(found, count, replace=False).tolist()
    if case["end_token_ids"] and index % 7 == 6 and width > 1:
        case["min_tokens"] = min(3, case["max_tokens"])
    return case


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "beams")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = lambda dtype: AutoModelForCausalLM.from_pretrained(
        HERE / "tiny" / MODEL, dtype=dtype, attn_implementation="eager"
    ).eval()
    model, double = load(torch.float32), load(torch.float64)
    random = np.random.default_rng(11)
    cases, dropped = [], 0
    while len(cases) < NUM_CASES:
        case = draw_case(random, model, len(cases))
        found, exact = search(model, case), search(double, case)
        if [t for _, t in found] != [t for _, t in exact]:
            dropped += 1
            continue
        case["hypotheses"] = [{"score": round(score, 6), "tokens": tokens} for score, tokens in found]
        cases.append(case)
    ended = sum(h["tokens"][-1] in c["end_token_ids"] for c in cases for h in c["hypotheses"])
    print(f"{sum(len(c['hypotheses']) for c in cases)} hypotheses, {ended} by an end token; {dropped} cases too close")
    oracle = f"transformers {transformers.__version__}, torch {torch.__version__}"
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cases.json").write_text(f'{{"oracle":"{oracle}","model":"{MODEL}","cases":[\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
