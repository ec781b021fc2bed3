"""--profile: a Chrome trace of where each step's time goes."""

import json
import subprocess

from conftest import BINARY

PHASES = {"take_in", "plan", "run", "sample", "commit", "publish"}
OPS = {"batch", "embed", "norm", "qkv", "rope_kv_write", "attention", "out", "gate_up", "activation", "down", "logits"}
STEP_ARGS = {"step", "sequences", "tokens", "prefill_tokens", "preemptions"}


def spans(path) -> tuple[dict, list[dict]]:
    """The file, and its complete events with begin and end in nanoseconds."""
    trace = json.loads(path.read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    for event in events:
        event["begin"] = round(event["ts"] * 1000)
        event["end"] = event["begin"] + round(event["dur"] * 1000)
    return trace, events


def check_nesting(events: list[dict]) -> None:
    """Events come parents first; each lies within whatever is open when it begins."""
    stack: list[dict] = []
    for event in events:
        while stack and event["begin"] >= stack[-1]["end"] and event["end"] > stack[-1]["end"]:
            stack.pop()
        if event["name"] == "step":
            stack.clear()
        elif event["name"] in PHASES:
            del stack[1:]
            assert stack and stack[0]["name"] == "step", event
        else:
            assert event["name"] in OPS and len(stack) >= 2 and stack[1]["name"] == "run", (event, stack)
        if stack:
            assert stack[-1]["begin"] <= event["begin"] and event["end"] <= stack[-1]["end"], (event, stack)
        stack.append(event)


def test_a_server_leaves_a_whole_profile_on_sigterm(start_server, tmp_path):
    path = tmp_path / "profile.json"
    server = start_server("--profile", str(path))
    prompt = "The quick brown fox jumps over the lazy dog, and so on."
    answer = server.client().completions.create(model="demo", prompt=prompt, max_tokens=12, temperature=0,
                                                extra_body={"ignore_eos": True})
    assert server.terminate() == 0
    trace, events = spans(path)
    check_nesting(events)
    assert {event["name"] for event in events} == {"step"} | PHASES | OPS

    steps = [event for event in events if event["name"] == "step"]
    assert trace["otherData"] == {"steps": len(steps), "events": len(events), "dropped_steps": 0}
    computed = [step["args"] for step in steps if step.get("args")]
    assert all(set(args) == STEP_ARGS for args in computed)
    ran = [args for args in computed if args["sequences"] > 0]
    assert [args["tokens"] for args in ran] == [answer.usage.prompt_tokens] + [1] * 11
    assert [args["prefill_tokens"] for args in ran] == [answer.usage.prompt_tokens] + [0] * 11
    assert all(args["preemptions"] == 0 for args in ran)
    for step in steps:
        covered = sum(event["end"] - event["begin"] for event in events
                      if event["name"] in PHASES and step["begin"] <= event["begin"] < step["end"])
        assert covered >= 0.95 * (step["end"] - step["begin"]), step
    assert f"profile {path}: {len(steps)} steps" in server.output()


def test_preemptions_and_batches_show(tmp_path, demo_path):
    path = tmp_path / "profile.json"
    done = subprocess.run([BINARY, "bench", "throughput", "demo", "--num-prompts", "24", "--input-len", "40",
                           "--output-len", "60", "--repeats", "1", "--kv-cache-memory", "16MiB", "--max-model-len", "512",
                           "--no-admission-headroom", "--profile", str(path)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    _, events = spans(path)
    check_nesting(events)
    args = [event["args"] for event in events if event.get("args")]
    assert line["preemptions"] > 0
    assert sum(each["preemptions"] for each in args) == line["preemptions"]
    assert max(each["sequences"] for each in args) > 1
    assert "attention" in done.stderr and "mean us" in done.stderr


def test_the_file_stays_below_its_limit(tmp_path, demo_path):
    path = tmp_path / "profile.json"
    done = subprocess.run([BINARY, "generate", "demo", "-p", "Hello", "--max-tokens", "100", "--ignore-eos",
                           "--profile", str(path), "--profile-size", "200KiB"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size <= 200 << 10
    trace, events = spans(path)
    check_nesting(events)
    counts = trace["otherData"]
    assert counts["steps"] > 0 and counts["dropped_steps"] > 0 and counts["steps"] + counts["dropped_steps"] >= 100


def test_a_file_that_cannot_be_made_is_named(tmp_path, demo_path):
    path = tmp_path / "none" / "profile.json"
    done = subprocess.run([BINARY, "generate", "demo", "-p", "Hello", "--profile", str(path)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and str(path) in done.stderr
