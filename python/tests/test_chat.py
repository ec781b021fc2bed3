"""LLM.chat and LLM.beam_search."""

import pytest

from pagemill import BeamSearchParams, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=24)
HELLO = [{"role": "user", "content": "What is the capital of France?"}]


def test_one_conversation_and_several(llm):
    [answer] = llm.chat(HELLO, GREEDY)
    assert "Paris" in answer.outputs[0].text
    assert answer.prompt.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    assert answer.prompt_token_ids == llm.tokenize(answer.prompt, add_special_tokens=False)
    answers = llm.chat([HELLO, [{"role": "system", "content": "Be brief."}, *HELLO]], GREEDY, use_tqdm=False)
    assert answers[0].outputs == answer.outputs and "Be brief." in answers[1].prompt


def test_options_of_the_template(llm):
    parts = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    assert "one\ntwo" in llm.chat(parts, GREEDY, use_tqdm=False)[0].prompt
    assert not llm.chat(HELLO, GREEDY, add_generation_prompt=False)[0].prompt.endswith("assistant\n")
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}"
    [answer] = llm.chat(HELLO, GREEDY, chat_template=template, chat_template_kwargs={"mood": "calm"})
    assert answer.prompt == "[What is the capital of France?]calm"


@pytest.mark.parametrize("messages, message", [
    ([{"content": "no role"}], r"messages\[0\].role: is required"),
    ([{"role": "user", "content": 3}], r"messages\[0\].content: expected"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "this model reads text only"),
    ([], "messages: the array is empty"),
])
def test_bad_messages_are_named_as_by_the_server(llm, messages, message):
    with pytest.raises(ValueError, match=message):
        llm.chat(messages, GREEDY)


def test_a_template_with_an_error(llm):
    with pytest.raises(ValueError):
        llm.chat(HELLO, GREEDY, chat_template="{% for %}")
    with pytest.raises(ValueError, match="continue_final_message"):
        llm.chat(HELLO, GREEDY, continue_final_message=True)


def test_beam_search(llm):
    prompts = ["The capital of France is", {"prompt": "Once upon a time"}]
    outputs = llm.beam_search(prompts, BeamSearchParams(beam_width=3, max_tokens=6))
    assert len(outputs) == 2
    for output, text in zip(outputs, ("The capital of France is", "Once upon a time")):
        assert len(output.sequences) == 3
        scores = [beam.beam_score for beam in output.sequences]
        assert scores == sorted(scores, reverse=True)
        for beam in output.sequences:
            assert beam.text.startswith(text) and beam.text == llm.detokenize(beam.tokens)
            generated = len(beam.tokens) - len(llm.tokenize(text))
            assert len(beam.logprobs) == generated <= 6
            assert beam.beam_score == pytest.approx(beam.cum_logprob / generated, rel=1e-4)
    [greedy] = llm.generate(prompts[0], SamplingParams(temperature=0, max_tokens=6, logprobs=0))
    assert outputs[0].sequences[0].cum_logprob >= greedy.outputs[0].cumulative_logprob - 1e-4
