"""LLM itself: its arguments, processes, threads, signals."""

import inspect
import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from pagemill import LLM, AsyncLLM, SamplingParams, _engine

LONG = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=3)


def test_the_signature_is_the_engines_list_of_options():
    parameters = inspect.signature(LLM).parameters
    options = {name: parameter.default for name, parameter in parameters.items()
               if name not in ("model", "tokenizer", "vllm_arguments")}
    engine = _engine.default_engine_options()
    assert engine.pop("model") == ""
    assert options == engine
    for name in parameters:
        assert f"        {name}: " in LLM.__doc__


def test_arguments_of_vllms_that_change_nothing_warn(tiny_path):
    with pytest.warns(UserWarning, match="gpu_memory_utilization changes nothing: kv_cache_memory_bytes bounds"):
        llm = LLM(model=tiny_path, gpu_memory_utilization=0.4, tensor_parallel_size=1, seed=None)
    assert len(llm.generate("a", SHORT)[0].outputs[0].token_ids) == 3
    assert repr(llm).startswith(f"LLM(model='{tiny_path}', max_model_len=")


@pytest.mark.parametrize("arguments, error, message", [
    ({"tensor_parallel_size": 2}, ValueError, "tensor_parallel_size: expected 1, got 2"),
    ({"tokenizer": "other"}, ValueError, "tokenizer: expected the model's own"),
    ({"max_len": 5}, TypeError, "LLM has no argument 'max_len'; it has tokenizer, model, dtype, .*max_model_len"),
    ({"max_model_len": "long"}, TypeError, "max_model_len: expected an integer, got 'long'"),
    ({"max_model_len": 10**9}, ValueError, "^max_model_len: the model's positions end at"),
    ({"block_size": 17}, ValueError, "^block_size: expected a multiple of 16"),
    ({"dtype": "float8"}, ValueError, "float8"),
    ({"model": "no/such/model"}, FileNotFoundError, "no such file or directory; expected a .gguf file"),
    ({"model": os.devnull}, OSError, "not a regular file"),
])
def test_bad_arguments(tiny_path, arguments, error, message):
    with pytest.raises(error, match=message):
        LLM(**{"model": tiny_path, **arguments})


def test_it_pickles_as_its_arguments(tiny_path):
    llm = LLM(tiny_path, max_model_len=128)
    twin = pickle.loads(pickle.dumps(llm))
    assert repr(twin) == repr(llm)
    assert twin.generate("a", SHORT)[0].outputs == llm.generate("a", SHORT)[0].outputs  # two in one process
    assert pickle.loads(pickle.dumps(AsyncLLM(tiny_path, max_num_seqs=2))).stats()["num_requests_running"] == 0


def test_threads_share_it_and_the_gil_is_free(llm):
    expected = llm.generate("Once upon", SHORT)[0].outputs
    results = []
    threads = [threading.Thread(target=lambda: results.append(llm.generate(["Once upon"] * 3, [LONG, SHORT, SHORT])))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    running = 0
    while any(thread.is_alive() for thread in threads):
        running = max(running, llm.stats()["num_requests_running"])
        if running >= 3 and not results:
            assert llm.generate("Once upon", SHORT)[0].outputs == expected
    assert running >= 3  # seen by this thread while those were in generate()
    assert all(output.outputs == expected for outputs in results for output in outputs[1:]) and len(results) == 3


class Stop(Exception):
    pass


@pytest.fixture
def sigint_raises():
    """As in a terminal; what runs in the background may have been started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_finished(llm, sigint_raises):
    def interrupt() -> None:
        while llm.stats()["generation_tokens"] < before + 20:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    before = llm.stats()["generation_tokens"]
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as raised:
        llm.generate(["Once upon"] * 5, [SHORT] + [LONG] * 4)
    thread.join()
    outputs = [output.outputs[0] for output in raised.value.outputs]
    assert outputs[0].finish_reason == "length" and len(outputs[0].token_ids) == 3
    for output in outputs[1:]:
        assert output.finish_reason == "abort" and 0 < len(output.token_ids) < 1500
    assert llm.stats()["num_blocks_referenced"] == 0
    assert llm.generate("Once upon", SHORT)[0].outputs == outputs[:1]


def test_a_bar_shows_tokens_and_its_exception_ends_the_batch(llm, capsys):
    llm.generate(["Once upon"] * 2, SHORT)
    shown = capsys.readouterr().err
    assert "Processed prompts" in shown and "6 tokens, " in shown and "tokens/s" in shown and "2/2" in shown
    llm.generate("Once upon", SHORT, use_tqdm=False)
    assert capsys.readouterr().err == ""

    def broken_bar(**_):
        raise Stop("enough")

    with pytest.raises(Stop) as raised:
        llm.generate(["Once upon"] * 2, LONG, use_tqdm=broken_bar)
    assert len(raised.value.outputs) == 2
    assert llm.stats()["num_requests_running"] == 0


def _in_child(llm, queue):
    try:
        llm.generate("a", SHORT)
        queue.put("no exception")
    except RuntimeError as error:
        queue.put(str(error))


def test_a_forked_child_hears_why_it_cannot_use_it(llm):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(llm, queue))
    child.start()
    assert "before the process was forked" in queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert llm.generate("a", SHORT)[0].finished
