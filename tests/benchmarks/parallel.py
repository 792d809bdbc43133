"""Are both cores busy, and do two processes leave each other alone?

    python -m tests.benchmarks.parallel [--length 32768] [--arms nano-v4,nano-dense]

Prints a Markdown table: the same prefill by one process with one thread, by one with two, by two
processes with a thread each, and by two processes with two threads each; with GNU
OpenMP's threads asleep after some looks (as the command line has it) and spinning (its default).
`of ideal` is tokens a second, all processes together, over what that many cores would do without
loss. Nothing is asserted: times belong to a machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from itertools import product
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

import numpy as np
import torch

from models.registry import load_model
from niah import waiting

WARM_UP = 3000  # tokens: the first call compiles the kernels
POLICIES = (waiting.LOOKS, None)  # of a new process, which reads it when it imports torch
SETUPS = ((1, 1), (1, 2), (2, 1), (2, 2))  # processes, threads of each


class Job(NamedTuple):
    """One process's prefill."""

    arm: str
    length: int
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, default=32768, help="tokens")
    parser.add_argument("--arms", type=lambda text: text.split(","), default="nano-v4,nano-dense")
    options = parser.parse_args()
    cores = multiprocessing.cpu_count()
    for arm in options.arms:
        print(f"\n{arm}, {options.length} tokens, {cores} cores\n")
        print("| waiting | processes | threads each | tokens/s together | of ideal |")
        print("|---|---|---|---|---|")
        alone = 0.0
        for policy, (processes, threads) in product(POLICIES, SETUPS):
            os.environ.pop(waiting.VARIABLE, None)
            os.environ.update({waiting.VARIABLE: policy} if policy else {})
            rate = together(Job(arm, options.length, threads), processes)
            alone = alone or rate
            share = rate / alone / min(processes * threads, cores)
            print(
                f"| {policy or 'spinning'} | {processes} | {threads} | {rate:.0f} | {share:.2f} |"
            )


def together(job: Job, processes: int) -> float:
    """Tokens a second of `processes` equal jobs that begin at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(job, barrier, queue)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    seconds = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return processes * job.length / max(seconds)


def _work(job: Job, barrier: Barrier, queue: multiprocessing.Queue[float]) -> None:
    torch.set_num_threads(job.threads)
    ids = np.random.default_rng(0).integers(0, 2048, job.length)
    model = load_model(job.arm)
    model.session().read(ids[:WARM_UP])
    session = model.session()
    barrier.wait()
    began = time.perf_counter()
    session.read(ids)
    queue.put(time.perf_counter() - began)


if __name__ == "__main__":
    main()
