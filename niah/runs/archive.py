"""Owns looking back at one question: its prompt around the needle, and every arm's answer.

Rebuilds the prompt from the run's own configuration; knows nothing of models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from haystacks.corpora.registry import load_corpus
from haystacks.needles.registry import find_family
from haystacks.tokenizer import load_tokenizer
from niah.errors import StoreError
from niah.runs.store import ENVIRONMENT, SPEC, Row, read_mapping, read_rows
from niah.sweep.config import load_sweep
from niah.sweep.planner import Materials, make_plan
from niah.sweep.prompts import Context, build_context
from niah.sweep.trials import Stream, Trial

# Fields of a row that a prompt and its answer are told by.
NEEDED = (
    *("key", "pair", "arm", "model", "family", "corpus", "layout", "depth", "needle_start"),
    *("answer", "correct", "outcome", "error"),
)
AROUND = 48  # tokens shown on either side of a needle


@dataclass(frozen=True)
class Archive:
    """A run's rows and the prompts they answer, rebuilt."""

    rows: list[Row]
    materials: Materials
    places: dict[str, tuple[Stream, Trial]]  # by pair

    def context(self, stream: Stream) -> Context:
        corpus = self.materials.corpora[stream.corpus]
        return build_context(stream, corpus, self.rows[0]["layout"])


def open_archive(folder: Path) -> Archive:
    """Raises: StoreError where there is no run, or its prompts cannot be rebuilt as they were."""
    rows = read_rows(folder)
    if not rows:
        raise StoreError(f"{folder}: holds no rows yet")
    missing = [field for field in NEEDED if any(field not in row for row in rows)]
    if missing:
        raise StoreError(
            f"{folder}: its rows lack {', '.join(missing)}; a reference of `niah accept` keeps "
            "what the gate reads and no answers: give the run that it was made from"
        )
    sweep = load_sweep(folder / SPEC)
    tokenizer = load_tokenizer(tokenizer_name(folder))
    corpora = {name: load_corpus(name, tokenizer) for name in sweep.corpora}
    families = {name: find_family(name) for name in sweep.families}
    materials = Materials(tokenizer, corpora, families)
    places = {trial.pair: (stream, trial) for stream, trial in make_plan(sweep, materials).trials()}
    if any(row["pair"] not in places for row in rows):
        raise StoreError(
            f"{folder}: was made from other texts, families or another tokenizer than are "
            "installed now; its prompts cannot be rebuilt"
        )
    return Archive(rows, materials, places)


def tokenizer_name(folder: Path) -> str:
    """Raises: StoreError where the run's environment does not tell it."""
    try:
        return str(read_mapping(folder / ENVIRONMENT)["identity"]["tokenizer_name"])
    except (OSError, StoreError, KeyError, TypeError):
        raise StoreError(f"{folder / ENVIRONMENT}: does not tell the run's tokenizer") from None


def find_row(rows: list[Row], key: str) -> Row:
    """The row whose key (or pair) begins with `key`. Raises: StoreError unless it is one."""
    found = [row for row in rows if row["key"].startswith(key)]
    found = found or [row for row in rows if row["pair"].startswith(key)]
    if not found or len({row["pair"] for row in found}) > 1:
        count = len(found) or "no"
        raise StoreError(f"key {key}: {count} rows begin so; keys are in rows.jsonl, 16 hex digits")
    return found[0]


def show_lines(folder: Path, key: str) -> Iterator[str]:
    """The question as a page of text: where it stands, its needle in place, what each arm said."""
    archive = open_archive(folder)
    row = find_row(archive.rows, key)
    stream, trial = archive.places[row["pair"]]
    yield (
        f"{trial.family} ({trial.templates}) in {stream.corpus}, layout {row['layout']}, repeat "
        f"{stream.repeat}, stream {stream.index}, corpus tokens from {stream.offset}"
    )
    depth = "none (control)" if trial.depth is None else f"{trial.depth:.0%}"
    yield f"length {trial.length} tokens, of them question {len(trial.question_ids)}; depth {depth}"
    yield from needle_lines(archive, stream, trial)
    yield f"[{trial.cut}..{trial.length}) question:{trial.fact.question}"
    yield f"gold: {', '.join(trial.fact.gold)}"
    for other in archive.rows:
        if other["pair"] == row["pair"]:
            said = other["error"] or repr(other["answer"])
            yield f"{other['arm']} ({other['key']}): {other['outcome']}: {said}"


def needle_lines(archive: Archive, stream: Stream, trial: Trial) -> Iterator[str]:
    """Each planted piece with its token indices and the text about it."""
    prompt = archive.context(stream).prompt(trial)
    decode = archive.materials.tokenizer.decode
    for start, end in trial.spans:
        first, last = max(0, start - AROUND), min(trial.cut, end + AROUND)
        yield f"[{first}..{start}) …{decode(prompt[first:start].tolist())}"
        yield f"[{start}..{end}) >>>{decode(prompt[start:end].tolist())} <<<"
        yield f"[{end}..{last}) {decode(prompt[end:last].tolist())}…"
