"""Requests a second to a server that answers at once, and the memory that this takes.

    python -m tests.benchmarks.server_requests [questions] [concurrency] [length]

Two processes: a stub on the loopback, which parses nothing, and a sweep with one arm.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from haystacks.tokenizer import BUNDLED_NAME
from models.registry import load_model
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.sweeps import ask_what_is_left
from niah.sweep.planner import make_plan
from tests.niah.fakes import sweep_of, tiny_materials

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the stub."""
    reply = json.dumps(
        {"choices": [{"text": " 48213.", "finish_reason": "stop"}], "usage": {}}
    ).encode()
    head = f"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n\r\n"
    try:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(asked)
            if length:
                await reader.readexactly(int(length[1]))
            status = "200 OK" if asked.startswith(b"POST") else "404 Not Found"
            writer.write((head % status).encode() + reply)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def stub() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def measure(port: int, questions: int, concurrency: int, length: int) -> None:
    """Print the rate, and resident memory after each quarter of the rows."""
    depths = 10
    sweep = sweep_of(
        arms=[{"name": "far", "role": "baseline", "model": "openai:stub"}],
        lengths=[length],
        depths=depths,
        repeats=max(1, questions // depths),
        max_needle_share=0.9,
    )
    options = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "tokenizer": BUNDLED_NAME,
        "concurrency": concurrency,
    }
    bench = Bench({"far": load_model("openai:stub", options)}, tiny_materials())
    began = time.perf_counter()
    plan = make_plan(sweep, bench.materials)
    print(f"planned {plan.questions} questions in {time.perf_counter() - began:.1f} s")
    process, tally = psutil.Process(), Tally()
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder), plan, bench) as store:
        marks = [plan.questions * quarter // 4 for quarter in (1, 2, 3, 4)]

        def progress(arm: object, tokens: int) -> None:
            if marks and tally.rows >= marks[0]:
                marks.pop(0)
                print(f"{tally.rows} rows: {process.memory_info().rss / 2**20:.0f} MiB")

        cpu = process.cpu_times()
        began = time.perf_counter()
        ask_what_is_left(plan, bench, store, progress, tally)
        seconds = time.perf_counter() - began
    used = process.cpu_times()
    own = used.user + used.system - cpu.user - cpu.system
    print(f"{process.memory_info().rss / 2**20:.0f} MiB at the end")
    print(
        f"{tally.rows} rows, {tally.errors} errors, {seconds:.1f} s: {tally.rows / seconds:.0f} "
        f"requests a second at concurrency {concurrency}; {1000 * own / tally.rows:.2f} ms of "
        "processor time each in this process"
    )


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    questions, concurrency, length = [*given, *(2000, 64, 512)[len(given) :]]
    command = [sys.executable, "-c", "from tests.benchmarks.server_requests import *; "]
    command[-1] += "asyncio.run(stub())"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            measure(int(server.stdout.readline()), questions, concurrency, length)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
