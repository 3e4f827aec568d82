"""Make the shipped model again: python -m llm_features.small_lm. The same machine and libraries give the same file."""

import sys
import time

from llm_features.small_lm import SHIPPED, make
from llm_features.small_lm.training import Recipe
from storage.datasets import world


def main() -> None:
    """Train by the recipe and replace the folder that is shipped."""
    import torch

    torch.set_num_threads(1)  # sums of several threads differ in the last bits from run to run
    started = time.monotonic()

    def say(done: int, total: int) -> None:
        if done % 25 == 0 or done == total:
            print(f"{done} of {total} steps, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    make(SHIPPED, world.Config(), Recipe(), on_progress=say)


if __name__ == "__main__":
    main()
