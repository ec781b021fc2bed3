"""--kv-disk-path: KV blocks that outlive the process that computed them."""

import concurrent.futures
import pathlib
import random
import time

# Long enough for a dozen blocks each, different from the first token on.
PROMPTS = [f"{number} things to know. " + " ".join(f"Item {i * number} is like item {i + number}." for i in range(22))
           for number in range(2, 10)]
# Room for one of them at a time: every other prompt evicts what the one before left.
TIGHT = ("--kv-cache-memory", "16MiB", "--max-model-len", "512")


def ask(server, prompt: str) -> str:
    return server.client().completions.create(model="demo", prompt=prompt, max_tokens=8,
                                              temperature=0).choices[0].text


def ask_all(server) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda prompt: ask(server, prompt), PROMPTS))


def test_a_restart_starts_warm(start_server, tmp_path):
    options = ("--kv-disk-path", str(tmp_path / "kv"))
    first = start_server(*options)
    expected = ask_all(first)
    assert first.metrics()["external_prefix_cache_hits_total"] == 0
    assert first.terminate() == 0
    second = start_server(*options)
    assert ask_all(second) == expected
    metrics = second.metrics()
    assert metrics["external_prefix_cache_hits_total"] >= 16 * len(PROMPTS)
    assert metrics["kv_disk_loaded_bytes_total"] > 0 and metrics["kv_disk_failed_loads_total"] == 0


def test_what_was_evicted_comes_back_and_the_disk_is_bounded(start_server, tmp_path):
    server = start_server("--kv-disk-path", str(tmp_path / "kv"), "--kv-disk-size", "20MiB", *TIGHT)
    expected = [ask(server, prompt) for prompt in PROMPTS]
    assert [ask(server, prompt) for prompt in reversed(PROMPTS)] == expected[::-1]
    assert server.metrics()["kv_disk_loaded_bytes_total"] > 0
    time.sleep(0.5)  # the writer is a thread of its own
    assert 0 < sum(path.stat().st_size for path in (tmp_path / "kv").glob("*.kv")) <= 20 << 20


def test_killed_while_writing_damaged_and_shared_no_answer_changes(start_server, tmp_path):
    """Killed at any moment, with torn files, two processes on one directory: the answers stay what they are."""
    expected = ask_all(start_server())
    folder: pathlib.Path = tmp_path / "kv"
    options = ("--kv-disk-path", str(folder), *TIGHT)
    dice = random.Random(20261122)
    print("seed 20261122")
    for _ in range(3):
        victim = start_server(*options)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for prompt in PROMPTS:
                pool.submit(ask, victim, prompt)  # its error is not looked at
            end, before = time.monotonic() + 60, len(list(folder.glob("*.kv")))
            while len(list(folder.glob("*.kv"))) == before and time.monotonic() < end:
                time.sleep(0.01)  # until it writes
            time.sleep(dice.uniform(0, 0.5))
            victim.process.kill()
    files = sorted(folder.glob("*.kv"))
    assert files
    for path in files[::3]:
        content = path.read_bytes()
        path.write_bytes(content[:dice.randrange(len(content))])
    pair = [start_server(*options), start_server(*options)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask_all, pair)) == [expected, expected]
    assert ask_all(pair[0]) == expected
    for server in pair:
        assert server.terminate() == 0


def test_a_directory_that_cannot_be_made_is_named(start_server, tmp_path):
    (tmp_path / "file").write_text("")
    try:
        start_server("--kv-disk-path", str(tmp_path / "file" / "kv"))
    except RuntimeError as error:
        assert str(tmp_path / "file") in str(error) and "exit status 1" in str(error)
    else:
        raise AssertionError("it started")
