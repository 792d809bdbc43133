"""Small real fakes, injected: models that answer by reading their tokens, and a small corpus."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import FAMILIES
from haystacks.tokenizer import BUNDLED_NAME, Tokenizer, load_tokenizer
from models.protocols import (
    Decoding,
    Finish,
    Forks,
    Piece,
    Reply,
    Session,
    TokenIds,
    TokenizerRef,
    Usage,
)
from models.stop_texts import stop_index
from niah.execution.loading import Bench
from niah.sweep.config import Sweep, parse_sweep
from niah.sweep.planner import Materials

BUNDLED = TokenizerRef(BUNDLED_NAME)


def work(seconds: float) -> None:
    """Keep the processor busy, so that on a loaded machine a fake slows down as a model would."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@dataclass
class RecallSession:
    """Remembers its last `memory` tokens, and copies what followed the question's statement."""

    model: "RecallModel"
    chunks: tuple[TokenIds, ...] = ()
    position: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    def extend(self, piece: Piece) -> None:
        began = time.perf_counter()
        ids = piece.ids
        work(self.model.seconds_per_token * len(ids))
        if self.position + len(ids) > self.model.fails_after:
            raise MemoryError("the fake is full")
        self.chunks = (*self.chunks, ids)
        self.position += len(ids)
        self.prefill_seconds += time.perf_counter() - began

    def fork(self) -> Session:
        return RecallSession(self.model, self.chunks, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        began = time.perf_counter()
        work(self.model.seconds_per_answer)
        ids = np.concatenate([np.asarray(chunk) for chunk in self.chunks])[-self.model.memory :]
        context, _, statement = self.model.spelling.decode(ids.tolist()).rpartition("?")
        _, found, rest = context.partition(f"{statement} ")
        value = rest.partition(".")[0] if found else "I do not know"
        # Like a language model it goes on after its answer, with digits of another sentence.
        written = self.model.spelling.encode(f" {value}.25 more")[: decoding.max_new_tokens]
        text = decoding.decode(written)
        end = stop_index(text, decoding.stop)
        kept = tuple(self.model.spelling.encode(text[:end])) if end is not None else written
        self.decode_seconds += time.perf_counter() - began
        finish: Finish = "length" if end is None else "stop"
        return Reply(text[:end], tuple(kept), finish, 0.0 if found else -10.0)

    def usage(self) -> Usage:
        held = {"full": 100 * min(self.position, self.model.memory)}
        return Usage(self.prefill_seconds, self.decode_seconds, cache_bytes=held)


@dataclass
class RecallModel:
    """Perfect recall within `memory` tokens; `fails_after` so many tokens it breaks."""

    name: str = "recall"
    memory: int = 1 << 30
    fails_after: int = 1 << 30
    seconds_per_token: float = 0.0
    seconds_per_answer: float = 0.0
    fingerprint: str = "0123456789abcdef"
    tokenizer: TokenizerRef | None = BUNDLED
    vocab_size: int | None = 2048
    max_position: int | None = 1 << 20
    forks: Forks = "share"
    device: str = "cpu"
    cache_kinds: Mapping[str, str] = field(default_factory=lambda: {"full": "every token"})
    spelling: Tokenizer = field(default_factory=lambda: load_tokenizer(BUNDLED_NAME))

    def session(self) -> Session:
        return RecallSession(self)

    def describe(self) -> dict[str, object]:
        return {"memory": self.memory}


def tiny_corpus(num_tokens: int = 70_000) -> Corpus:
    """Letters without digits or question marks, never repeated within a context."""
    tokenizer = load_tokenizer(BUNDLED_NAME)
    words = np.random.default_rng(0).integers(0, 26, size=(num_tokens, 3))
    text = " ".join("".join(chr(97 + letter) for letter in word) for word in words)
    ids = np.asarray(tokenizer.encode(text)[:num_tokens], dtype=np.uint16)
    return Corpus(
        "tiny", "feedfacefeedface", tokenizer.fingerprint, len(ids), ids, "none", "made up"
    )


def tiny_materials(num_tokens: int = 70_000) -> Materials:
    corpus = tiny_corpus(num_tokens)
    return Materials(load_tokenizer(BUNDLED_NAME), {"tiny": corpus}, FAMILIES)


def arms_of(*roles: tuple[str, str]) -> list[dict[str, str]]:
    """Arms of a sweep, a0 and on, by role and model."""
    return [
        {"name": f"a{n}", "role": role, "model": model} for n, (role, model) in enumerate(roles)
    ]


def sweep_of(**fields: object) -> Sweep:
    """A small valid sweep, some fields changed."""
    data = {
        "name": "small",
        "arms": [
            {"name": "dense", "role": "baseline", "model": "perfect"},
            {"name": "sparse", "role": "compressed", "model": "forgetful"},
        ],
        "corpora": "tiny",
        "families": "single_number",
        "lengths": [512, 1024],
        "depths": 3,
        "repeats": 2,
    }
    return parse_sweep(data | fields, "sweep")


def fake_bench(sweep: Sweep, materials: Materials, **settings: float) -> Bench:
    """Baselines recall everything, compressed arms their last 512 tokens."""
    models = {
        arm.name: RecallModel(
            name=arm.model,
            memory=1 << 30 if arm.role == "baseline" else 512,
            fingerprint=arm.name.encode().hex().ljust(16, "0")[:16],
            **settings,  # type: ignore[arg-type]
        )
        for arm in sweep.arms
    }
    return Bench(models, materials)
