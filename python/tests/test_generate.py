"""LLM.generate: kinds of prompts, what outputs hold, errors."""

import math
import pickle

import numpy as np
import pytest

from pagemill import LLM, SamplingParams, TextPrompt, TokensPrompt

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "The capital of France is"


def test_text_is_the_same_however_the_prompt_is_given(llm):
    ids = llm.tokenize(PROMPT)
    [expected] = llm.generate([PROMPT], GREEDY)
    assert "Paris" in expected.outputs[0].text
    assert expected.prompt == PROMPT and expected.prompt_token_ids == ids and expected.finished
    prompts = [PROMPT, ids, tuple(ids), np.array(ids), np.array(ids, dtype=np.uint16), {"prompt": PROMPT},
               {"prompt_token_ids": ids}, {"prompt_token_ids": np.array(ids, dtype=np.int32)}, TextPrompt(prompt=PROMPT),
               TokensPrompt(prompt_token_ids=ids)]
    for prompt in prompts:  # alone
        [output] = llm.generate(prompt, GREEDY, use_tqdm=False)
        assert output.outputs[0].text == expected.outputs[0].text
        assert output.prompt_token_ids == ids
        assert output.prompt == (PROMPT if isinstance(prompt, str) or "prompt" in list(prompt) else None)
    outputs = llm.generate(prompts, GREEDY)  # together
    assert [output.outputs[0].token_ids for output in outputs] == [expected.outputs[0].token_ids] * len(prompts)
    for output in llm.generate(np.array([ids, ids]), GREEDY):  # a row each
        assert output.outputs == expected.outputs
    assert llm.generate([], GREEDY) == []


def test_what_a_completion_holds(llm):
    params = SamplingParams(temperature=0.9, seed=7, n=2, max_tokens=5, logprobs=3, prompt_logprobs=1,
                            ignore_eos=True)
    [output] = llm.generate(PROMPT, params)
    assert [completion.index for completion in output.outputs] == [0, 1]
    for completion in output.outputs:
        assert len(completion.token_ids) == len(completion.logprobs) == 5
        assert completion.finish_reason == "length" and completion.stop_reason is None and completion.finished()
        assert completion.text == llm.detokenize(completion.token_ids, skip_special_tokens=True)
        chosen = [position[token] for token, position in zip(completion.token_ids, completion.logprobs)]
        assert completion.cumulative_logprob == pytest.approx(sum(logprob.logprob for logprob in chosen))
        for token, logprob, position in zip(completion.token_ids, chosen, completion.logprobs):
            assert 3 <= len(position) <= 4 and logprob.logprob <= 0 and logprob.rank >= 1
            assert logprob.decoded_token == llm.detokenize([token])
            assert {1, 2, 3} <= {candidate.rank for candidate in position.values()}
    assert output.prompt_logprobs[0] is None
    for token, position in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True):
        assert token in position and math.exp(position[token].logprob) <= 1
    metrics = output.metrics
    assert 0 < metrics.arrival_time <= metrics.first_scheduled_time <= metrics.first_token_time <= metrics.finished_time
    assert metrics.time_in_queue >= 0
    assert pickle.loads(pickle.dumps(output)) == output


def test_what_was_not_asked_for_is_none(llm):
    [output] = llm.generate(PROMPT, GREEDY)
    assert output.prompt_logprobs is None and output.outputs[0].logprobs is None
    assert output.outputs[0].cumulative_logprob is None and output.outputs[0].beam_score is None


def test_stop_reasons(llm):
    [output] = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=20, stop=["Paris"]))
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", "Paris")
    assert "Paris" not in output.outputs[0].text
    token = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids[1]
    [output] = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=20, stop_token_ids=[token]))
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", token)


def test_parameters_for_each_prompt_and_none(llm):
    params = [SamplingParams(temperature=0, max_tokens=count) for count in (1, 3, 2)]
    outputs = llm.generate([PROMPT] * 3, params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 3, 2]
    with pytest.raises(ValueError, match="sampling_params: expected one, or a list of one for each of 2 prompts, got 3"):
        llm.generate([PROMPT] * 2, params)
    assert len(llm.generate(PROMPT)[0].outputs[0].token_ids) <= llm.get_default_sampling_params().max_tokens


def test_max_tokens_none_fills_the_context(tiny_path):
    llm = LLM(tiny_path, max_model_len=64)
    params = SamplingParams(max_tokens=None, ignore_eos=True, temperature=0)
    outputs = llm.generate([[5, 6, 7], "some text"], params)
    for output in outputs:
        assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == 64


def test_the_prefix_cache(llm):
    prompt = "A long beginning that two prompts have in common, word by word and token by token, until its end. " * 2
    llm.generate(prompt + "One", GREEDY)
    [output] = llm.generate(prompt + "Two", GREEDY)
    assert output.num_cached_tokens >= len(llm.tokenize(prompt)) - 16
    assert llm.reset_prefix_cache()
    assert llm.generate(prompt + "Two", GREEDY)[0].num_cached_tokens == 0


@pytest.mark.parametrize("prompt, error, message", [
    ([[]], ValueError, r"prompts\[0\]: the prompt has no tokens"),
    ([1, 10**6], ValueError, "token id 1000000 is outside the vocabulary"),
    ([1, 2**40], ValueError, "32 bits"),
    (np.array([2**40]), ValueError, "32 bits"),
    (3, TypeError, r"prompt: expected a str, token ids, \{'prompt': str\} or"),
    ({"text": "a"}, TypeError, "prompt: expected"),
    ([1.5], TypeError, "prompt: expected"),
    (np.array([1.5]), TypeError, "prompt: expected"),
    (b"bytes", TypeError, "prompt: expected"),
    ([None], TypeError, "prompt: expected"),
    ("lone \ud800 surrogate", UnicodeEncodeError, "surrogates not allowed"),
])
def test_a_bad_prompt_is_an_exception(llm, prompt, error, message):
    with pytest.raises(error, match=message):
        llm.generate(prompt, GREEDY)
    assert llm.generate(PROMPT, GREEDY)[0].finished


def test_one_bad_prompt_leaves_the_others(llm):
    with pytest.raises(ValueError, match=r"prompts\[1\]: token id 1000000 is outside the vocabulary") as raised:
        llm.generate([PROMPT, [10**6], PROMPT], GREEDY)
    outputs = raised.value.outputs
    assert [len(output.outputs) for output in outputs] == [1, 0, 1]
    assert outputs[0].outputs[0].text == outputs[2].outputs[0].text != ""


def test_parameters_that_the_model_cannot_serve(llm):
    with pytest.raises(ValueError, match="maximum context length is 2048 tokens") as raised:
        llm.generate(PROMPT, SamplingParams(max_tokens=5000))
    assert raised.value.param == "max_tokens"
    with pytest.raises((TypeError, RuntimeError)):
        llm.generate(PROMPT, "greedy")


def test_scores(llm):
    likely, unlikely = llm.score([PROMPT + " Paris", PROMPT + " sofa"])
    assert likely.logprob > unlikely.logprob and likely.perplexity < unlikely.perplexity
    assert likely.token_ids == llm.tokenize(PROMPT + " Paris")[1:]
    assert likely.logprob == pytest.approx(sum(likely.token_logprobs))


def test_tokenizer(llm):
    tokenizer = llm.get_tokenizer()
    ids = tokenizer.encode("Hello world")
    assert tokenizer.decode(ids) == llm.detokenize(np.array(ids)) == "Hello world"
    assert len(tokenizer) == tokenizer.vocab_size > max(ids)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert [tokenizer.convert_token_to_id(piece) for piece in pieces] == ids
    assert tokenizer.convert_token_to_id("no such token at all") is None
    assert isinstance(tokenizer.eos_token_id, int)
