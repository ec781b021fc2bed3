"""python -m pagemill.entrypoints.openai.api_server --model MODEL: `pagemill serve` by vLLM's flag names.

Flags of vLLM's that `pagemill serve` has under another name are renamed; those that change nothing on a CPU are left out
with a warning; all others go on to `pagemill serve`, which refuses what it does not know.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ...engine_args import FIXED, IGNORED
from ...native import run

RENAMED = {
    "--kv-cache-memory-bytes": "--kv-cache-memory",
    "--disable-uvicorn-access-log": "--no-access-log",
    "--no-enable-prefix-caching": "--no-prefix-caching",
}
# Without a value.
DROPPED_SWITCHES = {"--enable-prefix-caching", "--enable-chunked-prefill", "--trust-remote-code", "--enforce-eager",
                    "--disable-log-requests", "--disable-log-stats", "--disable-custom-all-reduce",
                    "--disable-frontend-multiprocessing"}


def serve_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of `pagemill` for those of vLLM's server. Raises SystemExit with a message where there are none."""
    model, served_name, rest = None, False, []
    flags = iter(arguments)
    for argument in flags:
        flag, _, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag in DROPPED_SWITCHES:
            continue
        if flag == "--model" or name in IGNORED or name in FIXED:
            value = value or next(flags, "")
            if not value:
                raise SystemExit(f"{flag}: expected a value")
            if flag == "--model":
                model = value
            elif name in IGNORED:
                print(f"pagemill: warning: {flag} changes nothing: {IGNORED[name]}", file=sys.stderr)
            elif value != str(FIXED[name]):
                raise SystemExit(f"pagemill: error: {flag}: expected {FIXED[name]}, got {value}")
            continue
        served_name = served_name or flag == "--served-model-name"
        rest.append(RENAMED.get(flag, flag) + argument[len(flag):])
    if model is None:
        if {"-h", "--help"} & set(rest):
            return ["serve", "--help"]
        raise SystemExit("pagemill: error: --model: expected a GGUF file, a Hugging Face directory or 'demo'")
    # vLLM's clients name the model as --model did.
    return ["serve", model, *([] if served_name else ["--served-model-name", model]), *rest]


if __name__ == "__main__":
    run(serve_arguments(sys.argv[1:]))
