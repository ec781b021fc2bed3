"""The other endpoints, limits of the queue, start and stop."""

import concurrent.futures
import json
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest
from conftest import BINARY
from prometheus_client.parser import text_string_to_metric_families

# vLLM's v1 names, without the prefix.
METRICS = {
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries", "prefix_cache_hits",
    "num_preemptions", "prompt_tokens", "generation_tokens", "request_success", "time_to_first_token_seconds",
    "inter_token_latency_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
    "request_prefill_time_seconds", "request_decode_time_seconds", "request_inference_time_seconds",
    "request_prompt_tokens", "request_generation_tokens", "request_params_n", "request_params_max_tokens",
    "cache_config_info",
}


def families(server):
    return {family.name: family for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)}


def test_health_version_and_models(server, client, model):
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/version").json()["version"]
    listed = client.models.list().data
    assert [entry.id for entry in listed] == [model] and listed[0].object == "model"
    assert client.models.retrieve(model).id == model


@pytest.mark.parametrize("text", ["Hello, world!", "", "日本語 und Ümläute 😀", "<|im_start|>user\n", "a\u0000b", " \n\t x"])
def test_tokenize_and_back(server, text):
    made = httpx.post(f"{server.url}/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert made["count"] == len(made["tokens"]) and made["max_model_len"] > 0
    back = httpx.post(f"{server.url}/detokenize", json={"tokens": made["tokens"]}).json()
    assert back["prompt"] == text


def test_tokenize_messages_is_what_chat_counts(server, client, model):
    messages = [{"role": "user", "content": "Hello"}]
    count = httpx.post(f"{server.url}/tokenize", json={"messages": messages}).json()["count"]
    assert count == client.chat.completions.create(model=model, messages=messages, max_tokens=1).usage.prompt_tokens


def test_metrics_have_vllms_names(server, greedy):
    greedy("x", 4)
    found = families(server)
    assert {name.removeprefix("pagemill:") for name in found if name.startswith("pagemill:")} >= METRICS
    assert found["pagemill:time_to_first_token_seconds"].type == "histogram"
    assert found["pagemill:num_requests_running"].type == "gauge"
    assert found["pagemill:generation_tokens"].type == "counter"


def test_metrics_count_what_happened(server, greedy):
    server.wait_until_idle()
    before = server.metrics()
    answer = greedy("Count to ten: one, two,", 20, extra_body={"ignore_eos": True})
    after = server.metrics()
    assert after["generation_tokens_total"] - before["generation_tokens_total"] == 20
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] == answer.usage.prompt_tokens
    assert after["request_success_total"] - before["request_success_total"] == 1
    assert after["time_to_first_token_seconds_count"] - before["time_to_first_token_seconds_count"] == 1


def test_metrics_with_another_prefix(start_server):
    server = start_server("--metrics-prefix", "vllm")
    assert "vllm:num_requests_running" in families(server)


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(start_server):
    server = start_server()
    client = server.client()
    name = client.models.list().data[0].id
    # Seconds of tokens: what is asked below is answered while they still come, on the fastest machine too.
    options = {"model": name, "prompt": "Tell a long story:", "max_tokens": 800, "temperature": 0,
               "extra_body": {"ignore_eos": True}}
    expected = client.completions.create(**options).choices[0].text
    stream = iter(client.completions.create(stream=True, **options))
    text = next(stream).choices[0].text
    refused = server.client()
    server.process.send_signal(signal.SIGTERM)
    while httpx.get(f"{server.url}/health").status_code == 200:
        time.sleep(0.01)
    with pytest.raises(openai.InternalServerError) as caught:
        refused.completions.create(model=name, prompt="x")
    assert isinstance(caught.value, openai.InternalServerError) and caught.value.status_code == 503
    assert "retry-after" in caught.value.response.headers
    assert httpx.get(f"{server.url}/health").status_code == 503
    assert server.metrics()["num_requests_running"] == 1, "scrapers see the last values"
    text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == expected
    assert server.process.wait(30) == 0, server.output()


def test_connections_past_the_limit_hear_503(start_server):
    server = start_server("--max-connections", "2")
    with httpx.Client() as first, httpx.Client() as second:
        assert [each.get(f"{server.url}/health").status_code for each in (first, second)] == [200, 200]
        with pytest.raises(openai.InternalServerError) as caught:
            server.client().models.list()
        assert caught.value.status_code == 503 and "retry-after" in caught.value.response.headers
        assert first.get(f"{server.url}/health").status_code == 200


def test_sigterm_when_idle_is_quick(start_server):
    server = start_server()
    began = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began < 3


def test_a_full_queue_answers_429_at_once(start_server):
    server = start_server("--max-num-seqs", "1", "--max-queued-requests", "2")
    name = server.client().models.list().data[0].id
    body = {"model": name, "prompt": "x", "max_tokens": 200, "temperature": 0, "ignore_eos": True}

    def ask(_):
        began = time.monotonic()
        response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        return response, time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    statuses = sorted(response.status_code for response, _ in answers)
    assert statuses.count(200) >= 2 and set(statuses) <= {200, 429, 503} and statuses[-1] != 200
    for response, seconds in answers:
        if response.status_code != 200:
            assert "retry-after" in response.headers and seconds < 2
            assert response.json()["error"]["message"]


def test_preemption_changes_no_answer(start_server):
    """Blocks for about two of eight requests: some are preempted and recomputed, all say what each does alone."""
    server = start_server("--kv-cache-memory", "24MiB", "--no-prefix-caching", "--max-model-len", "1024")
    name = server.client().models.list().data[0].id
    prompts = [f"Write about the number {i}." for i in range(8)]

    def ask(prompt):
        answer = server.client().completions.create(model=name, prompt=prompt, max_tokens=400, temperature=0, logprobs=1,
                                                    extra_body={"ignore_eos": True})
        return answer.choices[0].text, answer.choices[0].logprobs.token_logprobs

    alone = [ask(prompt) for prompt in prompts[:2]]
    assert server.metrics()["num_preemptions_total"] == 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, prompts))
    assert server.metrics()["num_preemptions_total"] > 0
    assert together[:2] == alone


def test_an_api_key_is_asked_for(start_server):
    server = start_server("--api-key", "secret")
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    with pytest.raises(openai.AuthenticationError):
        server.client().models.list()
    keyed = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)
    assert keyed.models.list().data


def test_a_served_model_name(start_server):
    server = start_server("--served-model-name", "my-model")
    client = server.client()
    assert client.models.list().data[0].id == "my-model"
    assert client.completions.create(model="my-model", prompt="x", max_tokens=1).model == "my-model"


def test_a_port_in_use_is_an_error_that_says_so(server):
    from conftest import BINARY
    import subprocess

    done = subprocess.run([BINARY, "serve", "demo", "--port", str(server.port)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode != 0 and str(server.port) in done.stderr + done.stdout


def test_a_slow_reader_stops_nobody(server, model, greedy):
    """A client that opens a stream and does not read it holds up no one else."""
    import socket

    body = json.dumps({"model": model, "prompt": "x", "max_tokens": 400, "stream": True, "ignore_eos": True}).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.sendall(head + body)
        began = time.monotonic()
        assert greedy("The capital of France is", 8).choices[0].text
        assert time.monotonic() - began < 20


def test_requests_kept_alive_and_pipelined(server):
    import socket

    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as pipe:
        pipe.sendall(request * 3)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3:
            data = pipe.recv(65536)
            assert data, received
            received += data


def test_two_lengths_are_refused(server):
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as pipe:
        pipe.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while data := pipe.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 400") and received.count(b"HTTP/1.1") == 1


def test_one_process_many_threads_of_clients(server, model, greedy):
    """Plain threads, each with a connection of its own, as a load generator has."""
    expected = greedy("Water boils at", 16).choices[0].text
    texts = []

    def ask():
        texts.append(greedy("Water boils at", 16).choices[0].text)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [expected] * 32


def cached_tokens(greedy, prompt, **options) -> int:
    """How many tokens of the prompt (ids) the prefix cache supplied."""
    details = greedy(prompt, 1, **options).usage.prompt_tokens_details
    return details.cached_tokens if details else 0


def test_prefix_cache_hits_to_the_token_and_is_reset(start_server):
    server = start_server()
    client = server.client()

    def greedy(prompt, max_tokens, **options):
        return client.completions.create(model="demo", prompt=prompt, max_tokens=max_tokens, temperature=0, **options)

    prompt = list(range(100, 150))
    other = prompt[:27] + list(range(200, 220))
    assert cached_tokens(greedy, prompt) == 0
    assert cached_tokens(greedy, other) == 27  # a block of 16, and 11 tokens by copy
    assert server.metrics()["prefix_cache_copied_tokens_total"] == 11
    assert cached_tokens(greedy, prompt, extra_body={"cache_salt": "another tenant"}) == 0
    same_text = greedy(prompt, 16).choices[0].text
    assert cached_tokens(greedy, prompt) == 49  # all but the last: its block is full by now
    assert server.metrics()["prefix_cache_hits_total"] == 27 + 48 + 49
    answer = httpx.post(f"{server.url}/reset_prefix_cache")
    assert (answer.status_code, answer.content) == (200, b"")
    assert cached_tokens(greedy, prompt) == 0
    assert greedy(prompt, 16).choices[0].text == same_text


@pytest.mark.parametrize("tenants", ["keys", "users"])
def test_fair_policy_serves_a_tenant_beside_anothers_flood(start_server, tenants):
    keys = ["--api-key", "key of a", "--api-key", "key of b"] if tenants == "keys" else []
    server = start_server("--scheduling-policy", "fair", "--max-num-seqs", "1", *keys)
    finished = []
    clients = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=32))

    def complete(tenant, number):
        # With keys, `user` can't make one tenant look like many.
        user = f"{tenant}{number}" if keys else tenant
        answer = clients.post(f"{server.url}/v1/completions", headers={"Authorization": f"Bearer key of {tenant}"},
                              json={"model": "demo", "prompt": f"{tenant} {number}:", "max_tokens": 100, "user": user,
                                    "ignore_eos": True})
        assert answer.status_code == 200, answer.text
        finished.append(tenant)

    if keys:
        refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}, headers={"Authorization": "Bearer key of c"})
        assert refused.status_code == 401
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        flood = [pool.submit(complete, "a", i) for i in range(20)]
        while server.metrics()["num_requests_waiting"] < 18:
            assert not all(future.done() for future in flood)
            time.sleep(0.005)
        others = [pool.submit(complete, "b", i) for i in range(2)]
        for future in [*flood, *others]:
            future.result()
    # First come, first served would put both last.
    last_of_b = len(finished) - finished[::-1].index("b")
    assert last_of_b <= 12, finished


def test_memory_report_adds_up(server, client, model):
    def by_state():
        text = httpx.get(f"{server.url}/metrics").text
        family = next(f for f in text_string_to_metric_families(text) if f.name == "pagemill:kv_cache_bytes")
        return {sample.labels["state"]: sample.value for sample in family.samples}

    total = sum(by_state().values())
    assert total > 0
    stream = client.completions.create(model=model, prompt=list(range(300, 340)), max_tokens=1500, n=3, stream=True,
                                       extra_body={"ignore_eos": True})
    next(stream)
    for _ in range(100):  # there is a step at which the sequences just fill their blocks
        states, saved = by_state(), server.metrics()["kv_cache_saved_bytes"]
        if states["empty"] > 0:
            break
    stream.close()
    assert set(states) == {"tokens", "empty", "cached", "free", "pinned"}
    assert sum(states.values()) == pytest.approx(total)
    assert states["tokens"] > 0 and states["empty"] > 0 and saved > 0
    server.wait_until_idle()
    assert by_state()["tokens"] == 0 and by_state()["cached"] > 0


def test_inspect_prints_a_servers_memory(server):
    done = subprocess.run([str(BINARY), "inspect", "--memory", server.url], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [
        "token states", "empty block tails", "cached", "free", "pinned", "KV cache", "saved by sharing"]


def test_the_access_log_can_be_off(start_server):
    for options, is_logged in [((), True), (("--no-access-log",), False)]:
        quiet = start_server(*options)
        assert httpx.get(f"{quiet.url}/v1/models?key=secret").status_code == 200
        assert quiet.terminate() == 0
        assert ('"GET /v1/models HTTP/1.1" 200 ' in quiet.output()) == is_logged, quiet.output()
        assert "secret" not in quiet.output()
