"""AsyncLLM: streams, cancellation."""

import asyncio

import pytest

from pagemill import LLM, AsyncLLM, RequestOutputKind, SamplingParams

PROMPT = "The capital of France is"
LONG = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)


@pytest.fixture(scope="module")
def model() -> AsyncLLM:
    return AsyncLLM(model="demo", max_model_len=2048)


async def collect(model, *arguments):
    return [output async for output in model.generate(*arguments)]


async def until_free(model) -> None:
    """Aborted requests free their blocks within a step; the test's own time limit is the bound."""
    while model.stats()["num_requests_running"] or model.stats()["num_blocks_referenced"]:
        await asyncio.sleep(0.005)


def greedy(count, **others):
    return SamplingParams(temperature=0, max_tokens=count, **others)


def test_outputs_grow_to_what_llm_generates(model, llm: LLM):
    outputs = asyncio.run(collect(model, PROMPT, greedy(12), "mine"))
    [expected] = llm.generate(PROMPT, greedy(12), use_tqdm=False)
    assert outputs[-1].outputs == expected.outputs and outputs[-1].finished
    assert {output.request_id for output in outputs} == {"mine"} and outputs[0].prompt == PROMPT
    texts = [output.outputs[0].text for output in outputs]
    assert len(texts) > 1 and all(longer.startswith(text) for text, longer in zip(texts, texts[1:]))
    assert not any(output.finished for output in outputs[:-1])


def test_what_is_yielded(model):
    expected = asyncio.run(collect(model, PROMPT, greedy(12, n=1)))[-1].outputs[0]
    deltas = asyncio.run(collect(model, PROMPT, greedy(12, output_kind=RequestOutputKind.DELTA)))
    assert "".join(output.outputs[0].text for output in deltas) == expected.text
    assert sum((output.outputs[0].token_ids for output in deltas), []) == expected.token_ids
    [final] = asyncio.run(collect(model, PROMPT, greedy(12, output_kind=RequestOutputKind.FINAL_ONLY)))
    assert final.outputs[0] == expected


def test_many_at_once(model):
    async def run():
        return await asyncio.gather(*(collect(model, PROMPT, greedy(1 + i % 7)) for i in range(40)))

    for i, outputs in enumerate(asyncio.run(run())):
        assert len(outputs[-1].outputs[0].token_ids) == 1 + i % 7


def test_leaving_the_loop_frees_the_blocks(model):
    async def run():
        before = model.stats()["generation_tokens"]
        async for output in model.generate(PROMPT, LONG):
            if len(output.outputs[0].token_ids) > 3:
                break
        await until_free(model)
        return model.stats()["generation_tokens"] - before

    assert asyncio.run(asyncio.wait_for(run(), 60)) < 1500


def test_cancelling_the_task_frees_the_blocks(model):
    async def run():
        before = model.stats()["generation_tokens"]
        tasks = [asyncio.create_task(collect(model, PROMPT, LONG)) for _ in range(3)]
        while model.stats()["num_requests_running"] < 3 or model.stats()["num_blocks_referenced"] == 0:
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)
        await until_free(model)
        return model.stats()["generation_tokens"] - before

    assert asyncio.run(asyncio.wait_for(run(), 60)) < 3 * 1500


def test_abort_ends_the_stream(model):
    async def run():
        finish_reason = None
        async for output in model.generate(PROMPT, LONG, "to abort"):
            await model.abort("to abort")
            finish_reason = output.outputs[0].finish_reason
        await model.abort("unknown")
        await until_free(model)
        return finish_reason

    assert asyncio.run(asyncio.wait_for(run(), 60)) == "abort"


def test_errors(model):
    with pytest.raises(ValueError, match="maximum context length"):
        asyncio.run(collect(model, PROMPT, greedy(5000)))
    with pytest.raises(TypeError, match="prompt: expected"):
        asyncio.run(collect(model, 3, greedy(1)))

    async def twice():
        async for _ in model.generate(PROMPT, LONG, "same"):
            await collect(model, PROMPT, LONG, "same")

    with pytest.raises(ValueError, match="request_id: 'same' is running already"):
        asyncio.run(twice())
    assert len(asyncio.run(collect(model, PROMPT, greedy(2)))[-1].outputs[0].token_ids) == 2
