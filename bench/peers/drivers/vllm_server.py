"""vLLM's command line, for `serve`."""

import sys

import vllm_engine  # noqa: F401  (the version that vLLM asks for)

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
