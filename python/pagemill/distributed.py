"""What scripts written for vLLM import from here; there is nothing distributed to clean up."""

import gc


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Collects garbage, so that an LLM that was deleted gives its memory back."""
    gc.collect()
