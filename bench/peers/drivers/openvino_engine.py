"""OpenVINO GenAI's continuous batching."""

import numpy
import offline
import openvino
import openvino_genai


def load(job: dict) -> offline.Generate:
    settings = job["settings"]
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = settings["cache_gb"]
    scheduler.max_num_seqs = settings["max_num_seqs"]
    scheduler.max_num_batched_tokens = settings["max_num_batched_tokens"]
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    engine = openvino_genai.ContinuousBatchingPipeline(job["model"], scheduler, "CPU", settings["properties"])
    started = 0

    def generate(prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        nonlocal started
        handles = []
        for prompt, length in zip(prompts, lengths):
            config = openvino_genai.GenerationConfig(max_new_tokens=length, min_new_tokens=length, ignore_eos=True,
                                                     do_sample=False, num_beams=1)
            ids = openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))
            handles.append(engine.add_request(started, ids, config))
            started += 1
        while engine.has_non_finished_requests():
            engine.step()
        return [list(handle.read_all()[0].generated_ids) for handle in handles]

    return generate


if __name__ == "__main__":
    offline.run(load)
