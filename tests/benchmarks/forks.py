"""What a fork costs, a question in it, and its undo, in a cache of transformers' full layers.

    python -m tests.benchmarks.forks --tokens 16K --layers 32

The layers hold zeros; nothing is computed. Undo: the fork is dropped and the trunk reads on, one
token beyond what a trunk that was never forked takes. Printed: CPU milliseconds of one thread, the
least of several tries, beside a deep copy of the cache.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig

from models.transformers_models.growing import fork, new_cache
from niah.sweep.config import parse_length

TRIES = 15


def least(action: Callable[[], object]) -> float:
    """CPU milliseconds."""
    found = []
    for _ in range(TRIES):
        began = time.process_time()
        action()
        found.append(time.process_time() - began)
    return 1e3 * min(found)


def append(cache: Any, states: torch.Tensor) -> None:
    """Each layer holds `states` [1, G, n, C] behind its past."""
    for index in range(len(cache.layers)):
        cache.update(states, states, index)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=parse_length, default=1 << 14)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--question", type=int, default=24)
    told = parser.parse_args()
    torch.set_num_threads(1)
    trunk = new_cache(LlamaConfig(num_hidden_layers=told.layers))
    append(trunk, torch.zeros(1, told.heads, told.tokens, told.width))
    question = torch.zeros(1, told.heads, told.question, told.width)

    def ask() -> None:
        append(fork(trunk), question)

    def ask_and_undo() -> None:
        ask()
        append(fork(trunk), question[:, :, :1])  # where the first fork has written

    alone = least(lambda: append(fork(trunk), question[:, :, :1]))
    forked, asked, undone = least(lambda: fork(trunk)), least(ask), least(ask_and_undo)
    copied = least(lambda: copy.deepcopy(trunk))
    print(f"{told.tokens:,} tokens, {told.layers} layers, {told.heads} KV heads of {told.width}")
    print(f"fork {forked:.3f} ms")
    print(f"fork and a question of {told.question} tokens {asked:.3f} ms")
    print(f"its undo {max(0.0, undone - asked - alone):.3f} ms")
    print(f"deep copy {copied:.0f} ms")


if __name__ == "__main__":
    main()
