"""/v1/chat/completions through the openai package."""

import httpx
import pytest

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def chat(client, model):
    def complete(messages=MESSAGES, max_tokens=32, **options):
        options.setdefault("temperature", 0)
        return client.chat.completions.create(model=model, messages=messages, max_tokens=max_tokens, **options)

    return complete


def test_a_real_model_answers_and_stops(chat):
    answer = chat([{"role": "user", "content": "What is 2 + 2?"}], max_tokens=128)
    choice = answer.choices[0]
    assert "4" in choice.message.content
    assert choice.message.role == "assistant" and choice.finish_reason == "stop"
    assert "<|im_end|>" not in choice.message.content
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_system_message_and_a_conversation(chat):
    conversation = [*MESSAGES, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    terse = chat([{"role": "system", "content": "You are terse."}, *conversation])
    plain = chat(conversation)
    assert "Rome" in plain.choices[0].message.content
    assert terse.choices[0].message.content != plain.choices[0].message.content
    assert terse.usage.prompt_tokens < plain.usage.prompt_tokens  # the template's own system message is longer


def test_content_in_parts(chat):
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]
    assert chat(parts).choices[0].message.content == chat().choices[0].message.content


def test_max_completion_tokens_is_max_tokens(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_completion_tokens=3, temperature=0,
                                            extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 3 and answer.choices[0].finish_reason == "length"


def test_logprobs_of_the_chosen_and_the_top(chat):
    content = chat(max_tokens=8, logprobs=True, top_logprobs=5).choices[0].logprobs.content
    assert len(content) == 8
    for token in content:
        assert len(token.top_logprobs) == 5
        values = [entry.logprob for entry in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token or token.token == "\ufffd"


def test_logprobs_without_top(chat):
    content = chat(max_tokens=4, logprobs=True).choices[0].logprobs.content
    assert len(content) == 4 and all(token.top_logprobs == [] for token in content)


def test_no_logprobs_unless_asked(chat):
    assert chat(max_tokens=2).choices[0].logprobs is None


def test_n_choices(chat):
    answer = chat(n=3, temperature=1.0, seed=5, max_tokens=24)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_stream_equals_the_whole(chat):
    whole = chat()
    chunks = list(chat(stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 4
    assert all(chunk.object == "chat.completion.chunk" and chunk.usage is None for chunk in chunks)


def test_stream_with_usage(chat):
    whole = chat()
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_stream_with_n_and_logprobs(chat):
    texts, counts = {0: "", 1: ""}, {0: 0, 1: 0}
    options = {"n": 2, "temperature": 1.0, "seed": 5, "max_tokens": 16, "logprobs": True, "top_logprobs": 2}
    for chunk in chat(stream=True, **options):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            counts[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
    whole = chat(**options)
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert counts == {choice.index: len(choice.logprobs.content) for choice in whole.choices}


def test_continue_final_message(chat):
    messages = [*MESSAGES, {"role": "assistant", "content": "The capital of France is"}]
    answer = chat(messages, max_tokens=6,
                  extra_body={"add_generation_prompt": False, "continue_final_message": True})
    assert answer.choices[0].message.content.lstrip().startswith("Paris")


def test_generation_prompt_can_be_left_out(chat):
    usual = chat(max_tokens=1).usage.prompt_tokens
    without = chat(max_tokens=1, extra_body={"add_generation_prompt": False}).usage.prompt_tokens
    assert without < usual


def test_the_end_token_is_text_only_where_both_switches_ask_for_it(chat):
    """As vLLM: the token that ends an answer is left out, unless include_stop_str_in_output keeps it."""
    hidden = chat(max_tokens=128, extra_body={"skip_special_tokens": False}).choices[0]
    shown = chat(max_tokens=128,
                 extra_body={"skip_special_tokens": False, "include_stop_str_in_output": True}).choices[0]
    assert hidden.finish_reason == shown.finish_reason == "stop"
    assert shown.message.content == hidden.message.content + "<|im_end|>"


def test_tojson_keeps_the_order_of_keys(start_server, tmp_path):
    """The text is what Transformers' apply_chat_template makes of the same messages, tools and variables."""
    template = tmp_path / "tojson.jinja"
    template.write_text("{{ messages | tojson }}|{{ tools | tojson }}|{{ settings | tojson }}")
    server = start_server("--chat-template", str(template))
    parameters = {"type": "object", "required": ["z", "a"], "properties": {"z": {"type": "string"}, "a": {}}}
    body = {"messages": [{"role": "user", "content": "Hi", "zeta": 1, "alpha": 2}],
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}],
            "chat_template_kwargs": {"settings": {"z": 1, "a": {"y": 1.0, "b": [1e5, 2**64 - 1, -3, 2.5e-7, 1e22]},
                                                  "\u00e9": "\u00fc\u0001\"/", "n": None, "t": True}}}
    ids = httpx.post(f"{server.url}/tokenize", json=body).raise_for_status().json()["tokens"]
    text = httpx.post(f"{server.url}/detokenize", json={"tokens": ids}).raise_for_status().json()["prompt"]
    assert text == (
        '[{"role": "user", "content": "Hi", "zeta": 1, "alpha": 2}]|'
        '[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", '
        '"required": ["z", "a"], "properties": {"z": {"type": "string"}, "a": {}}}}}]|'
        '{"z": 1, "a": {"y": 1.0, "b": [100000.0, 18446744073709551615, -3, 2.5e-07, 1e+22]}, '
        '"\u00e9": "\u00fc\\u0001\\"/", "n": null, "t": true}')
