"""Many streams at once, clients that leave, and the same bits whatever else runs."""

import asyncio
import time

import pytest

PROMPTS = [f"Question {i}: name {i + 2} animals that live in the sea, and say how large they are. Answer:"
           for i in range(64)]


async def stream_text(client, model, prompt, max_tokens=24, **options):
    stream = await client.completions.create(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0,
                                             stream=True, **options)
    parts = [chunk.choices[0].text async for chunk in stream if chunk.choices]
    return "".join(parts)


def test_64_streams_at_once_say_what_each_would_alone(server, model, greedy):
    alone = [greedy(prompt).choices[0].text for prompt in PROMPTS]

    async def together():
        async with server.async_client() as client:
            return await asyncio.gather(*(stream_text(client, model, prompt) for prompt in PROMPTS))

    assert asyncio.run(together()) == alone


def test_streams_run_side_by_side(server, model):
    """All first tokens come before any stream ends: the requests share steps, and none waits for another."""
    first, last = [], []

    async def one(client, prompt):
        stream = await client.completions.create(model=model, prompt=prompt, max_tokens=256, temperature=0, stream=True,
                                                 extra_body={"ignore_eos": True})
        seen = False
        async for _ in stream:
            if not seen:
                first.append(time.monotonic())
                seen = True
        last.append(time.monotonic())

    async def together():
        async with server.async_client() as client:
            await asyncio.gather(*(one(client, prompt) for prompt in PROMPTS[:16]))

    asyncio.run(together())
    assert max(first) < min(last)


def scored(answer):
    logprobs = answer.choices[0].logprobs
    return answer.choices[0].text, logprobs.token_logprobs, logprobs.top_logprobs


def test_the_same_bits_alone_and_among_32_others(server, model, greedy):
    prompt, options = "The three laws of motion are", {"logprobs": 5}
    alone = scored(greedy(prompt, 32, **options))

    async def among_others():
        async with server.async_client() as client:
            others = [asyncio.create_task(client.completions.create(
                model=model, prompt=other, max_tokens=40 + 3 * i, temperature=1.0, seed=i,
                extra_body={"ignore_eos": True})) for i, other in enumerate(PROMPTS[:32])]
            most, end = 0, time.monotonic() + 20
            while most < 16 and time.monotonic() < end:
                most = (await asyncio.to_thread(server.metrics))["num_requests_running"]
            answer = await client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0, **options)
            await asyncio.gather(*others)
            return scored(answer), most

    together, most = asyncio.run(among_others())
    assert most >= 16, "the others were not running"
    assert together == alone


def test_the_same_bits_after_a_prefix_hit(server, greedy):
    prompt = " ".join(f"Fact {i}: the number {i} comes before {i + 1}." for i in range(40)) + f" Now, {time.time()}:"
    before = server.metrics()["prefix_cache_hits_total"]
    first = greedy(prompt, 16, logprobs=5)
    between = server.metrics()["prefix_cache_hits_total"]
    second = greedy(prompt, 16, logprobs=5)
    after = server.metrics()["prefix_cache_hits_total"]
    assert after - between > between - before and after - between >= first.usage.prompt_tokens // 16 * 16 - 16
    assert scored(first) == scored(second)


def test_the_same_bits_sampled_with_a_seed(server, client, model):
    def sample():
        return client.completions.create(model=model, prompt="A short poem:", max_tokens=32, temperature=1.0, top_p=0.9,
                                         seed=42, logprobs=3)

    alone = scored(sample())

    async def among_others():
        async with server.async_client() as busy:
            others = [asyncio.create_task(stream_text(busy, model, prompt, 40)) for prompt in PROMPTS[:24]]
            await asyncio.sleep(0.1)
            answer = await asyncio.to_thread(sample)
            await asyncio.gather(*others)
            return scored(answer)

    assert asyncio.run(among_others()) == alone


def test_clients_that_leave_free_their_sequences(server, model):
    server.wait_until_idle()

    async def leave():
        async with server.async_client() as client:
            streams = [await client.completions.create(model=model, prompt=prompt, max_tokens=1500, temperature=0,
                                                       stream=True, extra_body={"ignore_eos": True})
                       for prompt in PROMPTS[:12]]
            for stream in streams:
                await anext(aiter(stream))
            assert server.metrics()["num_requests_running"] == 12
            for stream in streams:
                await stream.close()

    asyncio.run(leave())
    server.wait_until_idle(2)
    assert server.metrics()["kv_cache_usage_perc"] == 0


def test_a_client_that_leaves_an_unstreamed_request(server, model):
    import httpx

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", timeout=0.5,
                   json={"model": model, "prompt": "x", "max_tokens": 1500, "temperature": 0, "ignore_eos": True})
    server.wait_until_idle(2)


def test_leaving_does_not_disturb_the_others(server, model, greedy):
    expected = [greedy(prompt, 48).choices[0].text for prompt in PROMPTS[:4]]

    async def mixed():
        async with server.async_client() as client:
            stay = [asyncio.create_task(stream_text(client, model, prompt, 48)) for prompt in PROMPTS[:4]]
            for prompt in PROMPTS[10:20]:
                stream = await client.completions.create(model=model, prompt=prompt, max_tokens=500, stream=True)
                await anext(aiter(stream))
                await stream.close()
            return await asyncio.gather(*stay)

    assert asyncio.run(mixed()) == expected
