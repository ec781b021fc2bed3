"""Stop strings: nothing past one reaches the text or the usage, streamed or not."""

import pytest

PROMPT = "Here is a list of the planets: Mercury, Venus,"


@pytest.fixture(scope="module")
def whole(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=48, temperature=0, logprobs=0,
                                       extra_body={"ignore_eos": True})
    assert len(answer.choices[0].logprobs.tokens) == 48
    return answer


def stops(text):
    """Stop strings that end at different places of tokens: within one, across two, over several words."""
    return [text[10:12], text[17:24], text[30:31], text[25:45]]


def tokens_until(tokens, stop):
    return next(count for count in range(1, len(tokens) + 1) if stop in "".join(tokens[:count]))


@pytest.mark.parametrize("which", range(4))
def test_text_ends_before_the_stop_string(greedy, whole, which):
    text, tokens = whole.choices[0].text, whole.choices[0].logprobs.tokens
    stop = stops(text)[which]
    answer = greedy(PROMPT, 48, stop=[stop], extra_body={"ignore_eos": True})
    assert answer.choices[0].text == text[:text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens <= tokens_until(tokens, stop)


@pytest.mark.parametrize("which", range(4))
def test_streams_never_show_a_part_of_it(greedy, whole, which):
    text = whole.choices[0].text
    stop = stops(text)[which]
    expected, shown = text[:text.index(stop)], ""
    chunks = list(greedy(PROMPT, 48, stop=[stop], stream=True, stream_options={"include_usage": True},
                         extra_body={"ignore_eos": True}))
    for chunk in chunks:
        shown += chunk.choices[0].text if chunk.choices else ""
        assert expected.startswith(shown)
    assert shown == expected
    unstreamed = greedy(PROMPT, 48, stop=[stop], extra_body={"ignore_eos": True})
    assert chunks[-1].usage.completion_tokens == unstreamed.usage.completion_tokens


def test_the_earliest_of_several_wins(greedy, whole):
    text = whole.choices[0].text
    early, late = text[15:18], text[40:44]
    answer = greedy(PROMPT, 48, stop=[late, early, "never said"], extra_body={"ignore_eos": True})
    assert answer.choices[0].text == text[:min(text.index(early), text.index(late))]


def test_a_stop_string_as_one_string(greedy, whole):
    text = whole.choices[0].text
    stop = text[17:24]
    assert greedy(PROMPT, 48, stop=stop, extra_body={"ignore_eos": True}).choices[0].text == text[:text.index(stop)]


def test_include_stop_str_in_output(greedy, whole):
    text = whole.choices[0].text
    stop = text[17:24]
    answer = greedy(PROMPT, 48, stop=[stop], extra_body={"include_stop_str_in_output": True, "ignore_eos": True})
    assert answer.choices[0].text == text[:text.index(stop) + len(stop)]


def test_a_stop_string_that_never_comes_withholds_nothing(greedy, whole):
    text = whole.choices[0].text
    almost = text[-4:] + "\x01"  # its beginning is the end of the text
    answer = greedy(PROMPT, 48, stop=[almost], extra_body={"ignore_eos": True})
    assert answer.choices[0].text == text and answer.choices[0].finish_reason == "length"


def test_logprobs_stop_where_the_tokens_do(greedy, whole):
    stop = whole.choices[0].text[17:24]
    answer = greedy(PROMPT, 48, stop=[stop], logprobs=1, extra_body={"ignore_eos": True})
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.completion_tokens
