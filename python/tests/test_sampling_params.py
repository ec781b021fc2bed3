"""SamplingParams: vLLM's names and defaults, checked by the engine's own list of fields."""

import copy
import pickle

import numpy as np
import pytest

from pagemill import BeamSearchParams, RequestOutputKind, SamplingParams


def test_the_defaults_are_vllms():
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 1.0, 1.0, 0, 0.0)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0.0, 0.0, 1.0)
    assert (params.max_tokens, params.min_tokens, params.ignore_eos, params.seed) == (16, 0, False, None)
    assert (params.stop, params.stop_token_ids, params.logprobs, params.prompt_logprobs) == ((), (), None, None)
    assert params.skip_special_tokens is True and params.include_stop_str_in_output is False
    assert params.output_kind is RequestOutputKind.CUMULATIVE
    assert repr(params) == "SamplingParams()"


def test_values_read_back_as_they_were_given():
    params = SamplingParams(temperature=0.8, top_p=np.float32(0.95), n=np.int64(2), stop="end", stop_token_ids=[5, 6],
                            logit_bias={15: -100.0}, seed=2**64 - 1)
    assert (params.temperature, params.top_p, params.n, params.seed) == (0.8, 0.95, 2, 2**64 - 1)
    assert (params.stop, params.stop_token_ids, dict(params.logit_bias)) == (("end",), (5, 6), {15: -100.0})
    beams = SamplingParams(use_beam_search=True, temperature=0, early_stopping="never")
    assert beams.early_stopping == "never" and params.early_stopping is False
    assert repr(SamplingParams(temperature=0.8, stop=["a"])) == "SamplingParams(temperature=0.8, stop=('a',))"


@pytest.mark.parametrize("name, value, message", [
    ("temperature", -1, "temperature: expected a number >= 0, got -1"),
    ("temperature", float("nan"), "temperature: expected a number >= 0, got nan"),
    ("top_p", 0, "top_p: expected a number > 0 and <= 1, got 0"),
    ("n", 0, "n: expected an integer >= 1 and <= 128, got 0"),
    ("n", 2**40, f"n: expected an integer >= 1 and <= 128, got {2**40}"),
    ("seed", -1, "seed: expected an integer >= 0, got -1"),
    ("logprobs", -2, "logprobs: expected an integer >= -1 and <= the vocabulary's size, got -2"),
    ("stop_token_ids", [-1], "stop_token_ids[0]: expected a token id >= 0, got -1"),
    ("stop", [""], "stop[0]: expected a string that is not empty, got ''"),
])
def test_a_value_out_of_range_is_a_value_error(name, value, message):
    with pytest.raises(ValueError) as raised:
        SamplingParams(**{name: value})
    assert str(raised.value) == message
    assert raised.value.param == message.split(":")[0]
    params = SamplingParams()
    with pytest.raises(ValueError, match="expected"):
        setattr(params, name, value)
    assert params == SamplingParams()


@pytest.mark.parametrize("name, value, message", [
    ("temperature", "hot", "temperature: expected a number >= 0, got 'hot'"),
    ("n", 1.5, "n: expected an integer >= 1 and <= 128, got 1.5"),
    ("n", True, "n: expected an integer >= 1 and <= 128, got True"),
    ("max_tokens", "3", "max_tokens: expected an integer >= 1, got '3'"),
    ("stop", 3, "stop: expected a list of strings, at most 64, got 3"),
    ("stop_token_ids", "ab", "stop_token_ids: expected a list of token ids, at most 1024, got 'ab'"),
    ("logit_bias", [1], "logit_bias: expected token ids, each with a number"),
    ("ignore_eos", 1, "ignore_eos: expected true or false, got 1"),
    ("early_stopping", "now", "early_stopping: expected true, false or 'never', got 'now'"),
    ("top_n", 1, "SamplingParams has no parameter 'top_n'; it has n, best_of, temperature, "),
])
def test_a_value_of_the_wrong_type_is_a_type_error(name, value, message):
    with pytest.raises(TypeError) as raised:
        SamplingParams(**{name: value})
    assert str(raised.value).startswith(message)


def test_combinations_are_checked():
    with pytest.raises(ValueError, match=r"best_of: expected an integer >= n \(2\), got 1"):
        SamplingParams(n=2, best_of=1)
    with pytest.raises(ValueError, match="min_tokens: expected an integer <= max_tokens"):
        SamplingParams(min_tokens=5, max_tokens=4)


def test_none_is_the_default():
    params = SamplingParams(temperature=None, stop=None, logit_bias=None, max_tokens=None, min_tokens=20)
    assert (params.temperature, params.stop, params.max_tokens, params.min_tokens) == (1.0, (), None, 20)


def test_it_pickles_copies_and_compares():
    params = SamplingParams(n=3, temperature=0.7, logit_bias={1: 2.0}, stop=["x"], max_tokens=None,
                            output_kind=RequestOutputKind.DELTA)
    for twin in (pickle.loads(pickle.dumps(params)), copy.copy(params), copy.deepcopy(params), params.clone()):
        assert twin == params and twin is not params and repr(twin) == repr(params)
    twin.temperature = 0.5
    assert twin != params and params.temperature == 0.7 and params != "params"


def test_lists_cannot_be_changed_in_place():
    params = SamplingParams(stop=["a"], logit_bias={1: 1.0})
    with pytest.raises(AttributeError):
        params.stop.append("b")
    with pytest.raises(TypeError):
        params.logit_bias[2] = 1.0


def test_beam_search_params():
    params = BeamSearchParams(beam_width=4, max_tokens=8, length_penalty=0.5).to_sampling_params()
    assert (params.n, params.use_beam_search, params.temperature, params.length_penalty) == (4, True, 0.0, 0.5)
    with pytest.raises(ValueError, match="temperature: expected 0 with use_beam_search"):
        BeamSearchParams(beam_width=4, max_tokens=8, temperature=1.0).to_sampling_params()
