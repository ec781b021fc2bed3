"""Hugging Face Transformers, one request at a time."""

import offline
import torch
from transformers import AutoModelForCausalLM


def load(job: dict) -> offline.Generate:
    torch.set_num_threads(job["settings"]["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 2

    def generate_one(prompt: list[int], length: int) -> list[int]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length,
                                    min_new_tokens=length, do_sample=False)
        return output[0, len(prompt):].tolist()

    return lambda prompts, lengths: [generate_one(prompt, length) for prompt, length in zip(prompts, lengths)]


if __name__ == "__main__":
    offline.run(load)
