"""Bad requests: OpenAI's error shape and status, the field named in `param`, and a server that goes on."""

import httpx
import openai
import pytest


def post(server, path, body, **options):
    return httpx.post(f"{server.url}{path}", json=body, timeout=30, **options)


def assert_error(response, status, param=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error
    return error


@pytest.mark.parametrize("options, param", [
    ({"temperature": -1}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 100000}, "n"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logprobs": -5}, "logprobs"),
    ({"extra_body": {"top_k": -7}}, "top_k"),
    ({"extra_body": {"min_p": 2}}, "min_p"),
    ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
    ({"extra_body": {"temperature": "hot"}}, "temperature"),
    ({"extra_body": {"stream": "yes"}}, "stream"),
])
def test_a_value_out_of_range_names_its_field(client, model, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt="x", **options)
    assert caught.value.param.split("[")[0] == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.status_code == 400


@pytest.mark.parametrize("messages, param", [
    ("hello", "messages"),
    ([], "messages"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
    ([{"role": "user", "content": "a"}, {"content": "b"}], "messages[1].role"),
    ([7], "messages[0]"),
])
def test_bad_messages_name_the_place(server, model, messages, param):
    assert_error(post(server, "/v1/chat/completions", {"model": model, "messages": messages}), 400, param)


def test_missing_prompt(server, model):
    assert_error(post(server, "/v1/completions", {"model": model}), 400, "prompt")


@pytest.mark.parametrize("prompt", [[[]], [1.5], [-1], [999999], {"a": 1}, [[1], 2.5], 7, None, []])
def test_bad_prompts(server, model, prompt):
    error = assert_error(post(server, "/v1/completions", {"model": model, "prompt": prompt}), 400)
    assert error["param"].startswith("prompt")


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="no-such-model", prompt="x")
    assert "no-such-model" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_prompt_longer_than_the_model_says_the_numbers(server, client, model):
    limit = post(server, "/tokenize", {"prompt": "x"}).json()["max_model_len"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt=[5] * (limit + 1), max_tokens=1)
    assert str(limit) in caught.value.message and str(limit + 1) in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"{}{}", b'{"model": "\xff"}', b"[" * 100_000,
                                  b'{"prompt": 1e999}', b'{"a":' * 5000])
def test_bodies_that_are_no_request(server, body):
    response = httpx.post(f"{server.url}/v1/completions", content=body, headers={"Content-Type": "application/json"},
                          timeout=30)
    assert_error(response, 400)


def test_a_body_over_the_limit_is_413(server):
    with httpx.Client(timeout=60) as http:
        try:
            response = http.post(f"{server.url}/v1/completions", content=b" " * (40 << 20))
        except httpx.WriteError:
            return  # refused while still being sent, which is as good
    assert_error(response, 413)


def test_unknown_paths_and_methods(server):
    assert_error(httpx.get(f"{server.url}/v1/nothing"), 404)
    assert httpx.get(f"{server.url}/v1/completions").status_code == 405
    assert httpx.post(f"{server.url}/health").status_code == 405


def test_an_error_in_one_of_many_leaves_the_others_alone(server, client, model, greedy):
    import threading

    expected = greedy("Water boils at", 48).choices[0].text
    answers = []

    def good():
        answers.append(greedy("Water boils at", 48).choices[0].text)

    threads = [threading.Thread(target=good) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert post(server, "/v1/completions", {"model": model, "prompt": [999999]}).status_code == 400
    for thread in threads:
        thread.join()
    assert answers == [expected] * 8
