"""Starts llama.cpp's server with one type of cache, until it is ended.

    python examples/engine/llama_server.py WEIGHTS.gguf --port 8081 --cache q4_0

Needs the package xllamacpp, which holds the server.
"""

import argparse
import signal
import sys

import xllamacpp

CACHE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}  # numbers of ggml


def started(
    weights: str, port: int, cache: str, context: int, slots: int, threads: int
) -> xllamacpp.Server:
    """A server that listens on the loopback. `context`: tokens of each of its `slots`."""
    params = xllamacpp.CommonParams()
    params.model.path, params.port = weights, port
    params.cache_type_k = params.cache_type_v = CACHE_TYPES[cache]
    params.n_ctx, params.n_parallel, params.warmup = context * slots, slots, False
    for pool in (params.cpuparams, params.cpuparams_batch):
        pool.n_threads, pool.poll = threads, 0  # on a busy machine a thread that waits should sleep
    params.cache_ram_mib = 0  # else prompts of other slots come back from memory
    return xllamacpp.Server(params)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", help="a GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cache", choices=CACHE_TYPES, default="f16")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a slot")
    parser.add_argument("--slots", type=int, default=1, help="requests at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--until-closed", action="store_true", help="end with standard input")
    given = parser.parse_args()
    server = started(
        given.weights, given.port, given.cache, given.context, given.slots, given.threads
    )
    if given.until_closed:
        sys.stdin.read()
    else:
        signal.pause()
    del server


if __name__ == "__main__":
    main()
