"""Prefill and decoding of the nano pair against what the machine could do.

    python -m tests.benchmarks.prefill [--lengths 4096,32768] [--threads 1,2]
    python -m tests.benchmarks.prefill --last --lengths 4096,131072 --arms mla,dsa
    python -m tests.benchmarks.prefill --decode --lengths 4096,1048576
    python -m tests.benchmarks.prefill --transformers --lengths 2048,4096,8192

`--last` reads only the last chunk of each length, behind rows that copy those of the first chunk
with noise. The work of a chunk grows linearly with its position, so that the mean of two chunks is
the mean of all between them.

Arms are names of the registry, or `mla` and `dsa` of configs/train-nano.yaml with random weights.
With one thread times are the processor's, otherwise the clock's. Nothing is asserted: times belong
to a machine, ratios to the code. A processor with AVX-512 does what one with AVX2 would after

    export NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma
    export ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import kernels
from models.deepseek_v4 import weights
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.checkpoint_files import Card
from models.deepseek_v4.loading import LoadedModel, build
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.protocols import Model
from models.registry import BUNDLED_TOKENIZER, load_model
from niah.training.config import Twin, load_train_config
from niah.training.trainer import model_config
from tests.benchmarks.floors import FLOAT, Ceilings, measured_ceilings, prefill_work
from tests.benchmarks.timers import now, timed
from tests.sessions import greedy_ids, held_total

ARMS = "nano-v4", "nano-dense"
RANDOM: dict[str, Twin] = {"mla": "mla", "dsa": "dsa"}
TRAINING = Path("configs/train-nano.yaml")
VOCABULARY = 2048
CALLS = 3  # of which the fastest counts
CHUNK = 2048  # tokens that a session reads at once
STEPS = 30  # tokens decoded, and forks made, for a median
WARM = 3000  # tokens that put every kernel to use
MEGABYTE = 1e6


def main() -> None:
    options = _options()
    isa = torch.backends.cpu.get_cpu_capability()
    print(f"{kernels.describe()}, torch {torch.__version__} with {isa}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        ceilings = measured_ceilings()
        print(
            f"\n{threads} thread(s): sgemm {ceilings.product / 1e9:.0f} GF/s, "
            f"indexer's kernel {ceilings.scores / 1e9:.0f} GF/s, "
            f"copy {ceilings.bandwidth / 1e9:.1f} GB/s"
        )
        for arm in options.arms:
            if options.transformers:
                _against_transformers(arm, options.lengths)
            elif options.last:
                _last_chunk_tables(_loaded(arm, max(options.lengths)), options.lengths, ceilings)
            elif options.decode:
                _decode_table(_loaded(arm, max(options.lengths)), options.lengths)
            else:
                _prefill_tables(_loaded(arm, max(options.lengths)), options.lengths, ceilings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=_numbers, default=[4096, 32768], help="tokens, ascending")
    parser.add_argument("--threads", type=_numbers, default=[torch.get_num_threads()])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    parser.add_argument("--last", action="store_true", help="the last chunk of each length alone")
    parser.add_argument("--decode", action="store_true", help="a token, and a fork, by length")
    parser.add_argument(
        "--transformers", action="store_true", help="the compressed arm's weights in transformers"
    )
    options = parser.parse_args()
    if options.transformers:
        options.arms = ["nano-v4"]
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _loaded(arm: str, longest: int) -> LoadedModel:
    """The arm with positions for what is decoded behind `longest` tokens."""
    positions = max(longest, WARM) + 2 * STEPS
    if arm in RANDOM:
        model: Model = _random(RANDOM[arm], positions)
    else:
        model = load_model(arm, {"max_position_embeddings": positions})
    assert isinstance(model, LoadedModel)
    model.session().read(_ids(WARM))  # compiles the kernels
    return model


def _random(arm: Twin, positions: int) -> LoadedModel:
    """The arm that `niah train` would begin with."""
    config = model_config(load_train_config(TRAINING), arm, VOCABULARY)
    config = replace(config, max_position_embeddings=positions)
    network = build(config)
    weights.initialize(network, 0)
    return LoadedModel(arm, network, Card(BUNDLED_TOKENIZER, None, "random weights"), config)


def _ids(count: int, start: int = 0) -> NDArray[np.int64]:
    """Tokens start .. start + count - 1 of one random text."""
    return np.random.default_rng(start).integers(0, VOCABULARY, count)


def _prefill_tables(model: LoadedModel, lengths: list[int], ceilings: Ceilings) -> None:
    """One session read to the longest length; a table at each."""
    _reset_peak()
    session = model.session()
    weight_bytes = FLOAT * weights.parameter_count(model.network)
    with timed() as timers:
        for length in lengths:
            timers.restart()
            session.read(_ids(length - session.position, session.position))
            seconds = timers.snapshot()
            cache = held_total(session)
            allowed = 3 * cache + weight_bytes + 500 * MEGABYTE
            print(f"\n{model.name}, {length} tokens: ", end="")
            print(f"{length / sum(seconds.values()):.0f} tokens/s, ", end="")
            print(f"cache {cache / MEGABYTE:.0f} MB, peak {_peak() / MEGABYTE:.0f} MB ", end="")
            print(f"of 3 x cache + weights + 500 MB = {allowed / MEGABYTE:.0f} MB\n")
            work = prefill_work(model.network.config, length)
            floors = {name: ceilings.seconds(part) for name, part in work.items()}
            _print_floors(floors, seconds)


def _last_chunk_tables(model: LoadedModel, lengths: list[int], ceilings: Ceilings) -> None:
    """A table of each length's last chunk, and one of the mean of the first and last of them."""
    tables = []
    for length in lengths:
        session = _behind(model, length - CHUNK)
        with timed() as timers:
            session.read(_ids(CHUNK, length))
        before = prefill_work(model.network.config, length - CHUNK)
        floors = {
            name: ceilings.seconds(part) - ceilings.seconds(before[name])
            for name, part in prefill_work(model.network.config, length).items()
        }
        print(f"\n{model.name}, the last {CHUNK} of {length} tokens\n")
        _print_floors(floors, timers.snapshot())
        tables.append((floors, timers.snapshot()))
    print(f"\n{model.name}, chunks from {lengths[0]} to {lengths[-1]} tokens on average\n")
    (floors, seconds), (last_floors, last_seconds) = tables[0], tables[-1]
    _print_floors(
        {name: (floor + last_floors[name]) / 2 for name, floor in floors.items()},
        {name: (spent + last_seconds[name]) / 2 for name, spent in seconds.items()},
    )


def _behind(model: LoadedModel, tokens: int) -> DeepseekV4Session:
    """A session behind `tokens` tokens, a multiple of CHUNK, of which the first are real."""
    session = model.session()
    session.read(_ids(CHUNK))
    for cache in session._caches:
        for _, _, part in cache._parts():
            if isinstance(part, Rows):
                own = part.read(len(part))
                for _ in range(tokens // CHUNK - 1):
                    part.append(own + 0.1 * own.std() * torch.randn(own.shape))
    session._position = tokens
    return session


def _print_floors(floors: dict[str, float], seconds: dict[str, float]) -> None:
    print("| component | floor s | measured s | ratio |\n|---|---|---|---|")
    rows = {name: (floors.get(name, 0.0), spent) for name, spent in seconds.items()}
    rows["total"] = sum(floors.values()), sum(seconds.values())
    for name, (floor, spent) in rows.items():
        ratio = f"{spent / floor:.2f}" if floor else ""
        print(f"| {name} | {floor:.3f} | {spent:.3f} | {ratio} |")


def _decode_table(model: LoadedModel, lengths: list[int]) -> None:
    """Medians of a fork and of a decoded token, against the shortest length."""
    print(f"\n{model.name}\n\n| tokens | fork ms | token ms | ratio |\n|---|---|---|---|")
    session, first = model.session(), 0.0
    for length in lengths:
        session.read(_ids(length - session.position, session.position))
        fork = statistics.median(_seconds(session.fork) for _ in range(STEPS))
        child = session.fork()
        child.read([1])
        token = statistics.median(_seconds(lambda: greedy_ids(child, 1)) for _ in range(STEPS))  # noqa: B023
        first = first or token
        print(f"| {length} | {fork * 1e3:.3f} | {token * 1e3:.2f} | {token / first:.2f} |")


def _against_transformers(arm: str, lengths: list[int]) -> None:
    """The same weights on both sides, without the temperature that transformers does not know."""
    from transformers import DeepseekV4ForCausalLM

    from tests.models.oracle import hugging_face_config

    trained = _loaded(arm, max(lengths)).network
    config = replace(trained.config, log_length_base=None)
    ours = DeepseekV4(config).eval()
    ours.load_state_dict(trained.state_dict())
    theirs = DeepseekV4ForCausalLM(hugging_face_config(config)).float().eval()
    theirs.load_state_dict(ours.state_dict())
    print("\n| tokens | transformers s | MB more | here s | MB more | faster | difference |")
    print("|---|---|---|---|---|---|---|")
    for length in lengths:
        ids = torch.from_numpy(_ids(length))
        here, our_bytes, ours_next = _best(lambda: _read(ours, ids))  # noqa: B023
        there, their_bytes, theirs_next = _best(lambda: _called(theirs, ids))  # noqa: B023
        difference = float((ours_next - theirs_next).abs().max() / theirs_next.abs().max())
        print(
            f"| {length} | {there:.2f} | {their_bytes / MEGABYTE:.0f} | {here:.3f} | "
            f"{our_bytes / MEGABYTE:.0f} | {there / here:.1f} x | {difference:.1e} |"
        )


def _read(model: DeepseekV4, ids: Tensor) -> Tensor:
    session = DeepseekV4Session(model)
    session.read(ids.numpy())
    return session.next_logits()


@torch.no_grad()
def _called(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids[None], use_cache=True, logits_to_keep=1).logits[0, -1]
    return logits


def _best(action: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Least seconds of a few calls, bytes that the first adds at most, and its result."""
    before = _reset_peak()
    start = now()
    result = action()
    seconds = [now() - start]
    more = _peak() - before
    seconds += [_seconds(action) for _ in range(CALLS - 1)]
    return min(seconds), more, result


def _seconds(action: Callable[[], object]) -> float:
    start = now()
    action()
    return now() - start


def _reset_peak() -> float:
    """Begin a new maximum of resident memory (Linux); the bytes resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024.0 * int(line.split()[1])


if __name__ == "__main__":
    main()
