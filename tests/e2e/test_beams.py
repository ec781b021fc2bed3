"""Beam search and best_of through the openai package and the command line."""

import json

import openai
import pytest
from test_cli import pagemill

PROMPT = "The capital of France is"


def beams(client, model, prompt=PROMPT, n=3, max_tokens=12, **fields):
    return client.completions.create(model=model, prompt=prompt, n=n, max_tokens=max_tokens,
                                     extra_body={"use_beam_search": True, **fields})


def test_hypotheses_come_best_first(client, model):
    answer = beams(client, model, n=4)
    scores = [choice.model_extra["beam_score"] for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True) and max(scores) < 0
    assert len({choice.text for choice in answer.choices}) == 4
    assert "Paris" in answer.choices[0].text


def test_a_score_is_the_mean_of_the_logprobs(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, n=2, max_tokens=10, logprobs=2,
                                       extra_body={"use_beam_search": True, "beam_width": 4, "ignore_eos": True})
    for choice in answer.choices:
        logprobs = choice.logprobs.token_logprobs
        assert len(logprobs) == 10
        assert abs(sum(logprobs) / 10 - choice.model_extra["beam_score"]) < 1e-4
    assert answer.usage.completion_tokens == 20  # of the hypotheses returned, not of all four beams


def test_wider_is_no_less_likely_than_greedy(client, model, greedy):
    plain = greedy(PROMPT, 8, logprobs=0, extra_body={"ignore_eos": True})
    greedy_mean = sum(plain.choices[0].logprobs.token_logprobs) / 8
    one = beams(client, model, n=1, max_tokens=8, ignore_eos=True)
    assert one.choices[0].text == plain.choices[0].text
    assert abs(one.choices[0].model_extra["beam_score"] - greedy_mean) < 1e-4
    wide = beams(client, model, n=1, max_tokens=8, beam_width=8, ignore_eos=True)
    assert wide.choices[0].model_extra["beam_score"] >= greedy_mean - 1e-4


def test_the_same_among_others(client, model):
    alone = beams(client, model)
    together = beams(client, model, prompt=[PROMPT, "Water boils at", "Once upon a time"])
    assert [c.text for c in together.choices[:3]] == [c.text for c in alone.choices]
    scores = [[c.model_extra["beam_score"] for c in answer.choices[:3]] for answer in (alone, together)]
    assert scores[0] == scores[1]


def test_stop_token_ids_end_hypotheses(client, model):
    free = beams(client, model, n=1, return_token_ids=True, ignore_eos=True)
    end = free.choices[0].model_extra["token_ids"][3]
    answer = beams(client, model, n=1, beam_width=3, stop_token_ids=[end], early_stopping=True)
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].model_extra["stop_reason"] == end


def test_chat(client, model):
    answer = client.chat.completions.create(
        model=model, n=2, max_tokens=8, messages=[{"role": "user", "content": "Name a colour."}],
        extra_body={"use_beam_search": True, "beam_width": 4, "length_penalty": 0.5, "early_stopping": "never"})
    scores = [choice.model_extra["beam_score"] for choice in answer.choices]
    assert len(scores) == 2 and scores[0] >= scores[1]
    assert answer.choices[0].message.content


@pytest.mark.parametrize("fields, param", [
    ({"temperature": 0.7}, "temperature"),
    ({"top_p": 0.5}, "top_p"),
    ({"stop": ["x"]}, "stop"),
    ({"stream": True}, "stream"),
    ({"extra_body": {"beam_width": 1}}, "beam_width"),
    ({"extra_body": {"early_stopping": "sometimes"}}, "early_stopping"),
    ({"extra_body": {"length_penalty": "long"}}, "length_penalty"),
])
def test_what_does_not_go_together(client, model, fields, param):
    fields = dict(fields)
    extra = {"use_beam_search": True, **fields.pop("extra_body", {})}
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt=PROMPT, n=2, max_tokens=4, extra_body=extra, **fields)
    assert error.value.param == param


def test_best_of_returns_the_likeliest(client, model):
    def sample(n, **extra):
        answer = client.completions.create(model=model, prompt="Once upon a time", n=n, max_tokens=12, seed=4,
                                           temperature=1.0, logprobs=0, extra_body={"ignore_eos": True, **extra})
        return [(sum(choice.logprobs.token_logprobs), choice.text) for choice in answer.choices]

    assert sample(2, best_of=5) == sorted(sample(5), reverse=True)[:2]


def test_generate_on_the_command_line(demo_path, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPT}) + "\n" +
                       json.dumps({"prompt": PROMPT, "use_beam_search": True, "n": 2, "beam_width": 3}) + "\n")
    done = pagemill("generate", "demo", "--prompts", prompts, "--max-tokens", 6, "--use-beam-search", "--n", 2,
                    "--beam-width", 3)
    assert done.returncode == 0, done.stderr
    flags, fields = [json.loads(line)["outputs"] for line in done.stdout.splitlines()]
    assert flags == fields and len(flags) == 2 and flags[0]["beam_score"] >= flags[1]["beam_score"]
    one = pagemill("generate", "demo", "-p", PROMPT, "--max-tokens", 6, "--use-beam-search", "--beam-width", 3)
    assert one.returncode == 0 and one.stdout.strip() == flags[0]["text"].strip()
