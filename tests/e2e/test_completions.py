"""/v1/completions through the openai package."""

import httpx

PROMPT = "The capital of France is"


def test_a_real_model_answers(greedy):
    answer = greedy(PROMPT, 8)
    assert "Paris" in answer.choices[0].text
    assert answer.object == "text_completion" and answer.id and answer.created > 1_700_000_000


def test_usage_and_finish_reason(greedy):
    answer = greedy(PROMPT, 7, extra_body={"ignore_eos": True})
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == 12
    assert answer.choices[0].finish_reason == "length"


def test_greedy_is_the_same_each_time(greedy):
    assert len({greedy(PROMPT).choices[0].text for _ in range(3)}) == 1


def test_a_seed_repeats_and_another_differs(client, model):
    def sample(seed):
        return client.completions.create(model=model, prompt="Once upon a time", max_tokens=32, temperature=1.0,
                                         seed=seed).choices[0].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(1, 6)}) == 5


def test_without_a_seed_samples_differ(client, model):
    texts = {client.completions.create(model=model, prompt="Once upon a time", max_tokens=32, temperature=1.0
                                       ).choices[0].text for _ in range(3)}
    assert len(texts) == 3


def test_n_gives_different_choices_and_counts_the_prompt_once(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, temperature=1.0, n=4,
                                       seed=3, extra_body={"ignore_eos": True})
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in answer.choices}) == 4
    assert answer.usage.prompt_tokens == 4 and answer.usage.completion_tokens == 64


def test_n_is_seeded_by_index(client, model):
    def sample(n):
        answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, temperature=1.0,
                                           n=n, seed=3)
        return [choice.text for choice in answer.choices]

    assert sample(4)[:2] == sample(2)


def test_n_greedy_choices_are_equal(greedy):
    answer = greedy(PROMPT, n=3)
    assert len({choice.text for choice in answer.choices}) == 1


def test_a_batch_of_prompts_in_order(greedy):
    prompts = [PROMPT, "Water boils at", "The opposite of hot is"]
    alone = [greedy(prompt).choices[0].text for prompt in prompts]
    together = greedy(prompts)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == alone


def test_a_batch_with_n_is_prompt_major(greedy):
    prompts = [PROMPT, "Water boils at"]
    alone = [greedy(prompt).choices[0].text for prompt in prompts]
    answer = greedy(prompts, n=2)
    by_index = [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
    assert by_index == [alone[0], alone[0], alone[1], alone[1]]


def test_prompts_as_token_ids(server, greedy):
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    expected = greedy(PROMPT).choices[0].text
    assert greedy(ids).choices[0].text == expected
    assert [choice.text for choice in greedy([ids, ids]).choices] == [expected, expected]


def test_echo(greedy):
    plain, echoed = greedy(PROMPT), greedy(PROMPT, echo=True)
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text
    assert echoed.usage == plain.usage


def test_echo_with_logprobs_scores_the_prompt(greedy):
    answer = greedy(PROMPT, 4, echo=True, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == 5 + 4 == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(9)]


def test_logit_bias_forces_and_bans(server, greedy):
    text = greedy(PROMPT, 1).choices[0].text
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert len(ids) == 1
    forced = greedy("Water boils at", 5, logit_bias={str(ids[0]): 100})
    assert forced.choices[0].text == text * 5
    assert greedy(PROMPT, 1, logit_bias={str(ids[0]): -100}).choices[0].text != text


def test_allowed_token_ids(server, greedy):
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": " yes no"}).json()["tokens"]
    answer = greedy("Is water wet? Answer:", 6, extra_body={"allowed_token_ids": ids})
    assert set(answer.choices[0].text.split()) <= {"yes", "no"}


def test_min_tokens_and_ignore_eos(greedy):
    answer = greedy("The end.", 40, extra_body={"min_tokens": 40})
    assert answer.usage.completion_tokens == 40


def test_stop_token_ids(server, greedy):
    whole = greedy(PROMPT, 12).choices[0].text
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": whole, "add_special_tokens": False}).json()["tokens"]
    answer = greedy(PROMPT, 12, extra_body={"stop_token_ids": [ids[0]]})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 1


def test_top_k_one_is_greedy(client, model, greedy):
    sampled = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=1.5, seed=9,
                                        extra_body={"top_k": 1})
    assert sampled.choices[0].text == greedy(PROMPT).choices[0].text


def test_penalties_change_the_text(greedy):
    repetitive = "la la la la la la la la la la la"
    plain = greedy(repetitive, 32).choices[0].text
    for options in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0},
                    {"extra_body": {"repetition_penalty": 2.0}}):
        assert greedy(repetitive, 32, **options).choices[0].text != plain


def test_bad_words_never_appear(greedy):
    assert "Paris" in greedy(PROMPT, 8).choices[0].text
    answer = greedy(PROMPT, 8, extra_body={"bad_words": ["Paris"]})
    assert "Paris" not in answer.choices[0].text


def test_prompt_logprobs(greedy):
    answer = greedy(PROMPT, 1, extra_body={"prompt_logprobs": 2})
    logprobs = answer.choices[0].model_extra["prompt_logprobs"]
    assert len(logprobs) == 5 and logprobs[0] is None
    for position in logprobs[1:]:
        assert len(position) in (2, 3)  # the top two, and the prompt's own token where it is neither
        assert all(entry["logprob"] <= 0 and entry["rank"] >= 1 for entry in position.values())


def test_user_changes_nothing(greedy):
    assert greedy(PROMPT, user="someone").choices[0].text == greedy(PROMPT).choices[0].text


def test_unicode_comes_back_whole(greedy):
    answer = greedy("Write emoji: 😀 😃 😄 😁 😆 😅", 32, extra_body={"ignore_eos": True})
    answer.choices[0].text.encode("utf-8")
    assert answer.usage.completion_tokens == 32
