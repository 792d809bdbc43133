"""Looks back at a run: its prompts rebuilt from its own configuration, every arm's answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haystacks.corpora.external import FORMAT
from haystacks.corpora.registry import Corpus, load_corpus
from haystacks.needles.registry import Family, find_family
from haystacks.tokenizer import Tokenizer, load_tokenizer
from niah.errors import FileError, StoreError
from niah.runs.history import ENVIRONMENT, SPEC, asked_sweeps, read_history
from niah.runs.row import Row
from niah.runs.store import read_rows
from niah.sweep.config import Sweep, parse_sweep
from niah.sweep.grid import longest_prompt
from niah.sweep.planner import Materials, make_plan, plan_repeat
from niah.sweep.prompts import Context, build_context
from niah.sweep.trials import Stream, Trial

# Fields of a row that a prompt and its answer are told by.
NEEDED = frozenset({"answer", "outcome"})
AROUND = 48  # tokens shown on either side of a needle
LOCAL = "file:"
HF = "hf:"


@dataclass(frozen=True)
class Archive:
    """Rows of a run and the prompts that they answer, rebuilt."""

    rows: list[Row]
    materials: Materials
    places: dict[str, tuple[Stream, Trial]]  # by pair

    def context(self, stream: Stream) -> Context:
        corpus = self.materials.corpora[stream.corpus]
        return build_context(stream, corpus, self.rows[0].layout)


def open_archive(folder: Path) -> Archive:
    """A whole run. Raises: StoreError where its prompts cannot be rebuilt as they were."""
    rows = answered_rows(folder)
    *before, sweep = run_sweeps(folder)
    materials = run_materials(folder, sweep, sweep.corpora)
    streams = make_plan(sweep, materials, before).streams
    return archive(folder, rows, materials, streams)


def open_repeat(folder: Path, key: str) -> Archive:
    """The repeat of one question, in its corpus; `key` is as in `find_row`.

    Raises: StoreError where there is no such question, or its prompt cannot be rebuilt as it was.
    """
    rows = answered_rows(folder)
    row = find_row(rows, key)
    *before, sweep = run_sweeps(folder)
    materials = run_materials(folder, sweep, [row.corpus])
    streams = plan_repeat(sweep, materials, row.corpus, row.repeat, before)
    place = (row.corpus, row.repeat)
    beside = [other for other in rows if (other.corpus, other.repeat) == place]
    return archive(folder, beside, materials, streams)


def archive(
    folder: Path, rows: list[Row], materials: Materials, streams: Sequence[Stream]
) -> Archive:
    """Raises: StoreError where a row answers none of the questions of `streams`."""
    places = {trial.pair: (stream, trial) for stream in streams for trial in stream.trials}
    if any(row.pair not in places for row in rows):
        raise StoreError(
            f"{folder}: was made from other texts, families or another tokenizer than are "
            "installed now; its prompts cannot be rebuilt"
        )
    return Archive(rows, materials, places)


def answered_rows(folder: Path) -> list[Row]:
    """Raises: StoreError where there is no run, or only a reference without answers."""
    rows = read_rows(folder)
    if not rows:
        raise StoreError(f"{folder}: holds no rows yet")
    missing = {field for row in rows for field in NEEDED - row.model_fields_set}
    if missing:
        raise StoreError(
            f"{folder}: its rows lack {', '.join(sorted(missing))}; a reference of `niah accept` "
            "keeps what the gate reads and no answers: give the run that it was made from"
        )
    return rows


def run_sweeps(folder: Path) -> list[Sweep]:
    """What the run was asked, the oldest first. Raises: StoreError, SpecError."""
    asked = asked_sweeps(folder)
    if not asked:
        raise StoreError(f"{folder}: holds no {SPEC}")
    return [parse_sweep(fields, str(folder / SPEC)) for fields in asked]


def run_materials(folder: Path, sweep: Sweep, names: Sequence[str]) -> Materials:
    """The run's tokenizer, its families, and the corpora called `names`."""
    tokenizer = run_tokenizer(folder)
    longest = longest_prompt(sweep)
    corpora = {name: run_corpus(folder, name, tokenizer, longest) for name in names}
    families = {name: run_family(folder, name) for name in sweep.families}
    return Materials(tokenizer, corpora, families)


def run_family(folder: Path, name: str) -> Family:
    """A family of the run; a relative path is found from where the sweep's YAML was, too."""
    path = Path(name.removeprefix(LOCAL).partition(FORMAT)[0]).expanduser()
    if not name.startswith(LOCAL) or path.is_absolute():
        return find_family(name)
    places = made_at(folder, "sweep_folder", path)
    return find_family(name, places[0]) if places else find_family(name)


def made_at(folder: Path, name: str, path: Path) -> list[Path]:
    """The folders `name` of the run's invocations that hold `path`; kept relative to the run's."""
    history = read_history(folder)
    runs = history.runs if history else ()
    places = [folder / str(run[name]) for run in runs if name in run]
    return [place for place in places if (place / path).exists()]


def run_corpus(folder: Path, name: str, tokenizer: Tokenizer, longest: int) -> Corpus:
    """A corpus of the run; a relative path is found from where the run was made, too."""
    if not name.startswith(LOCAL):
        return load_corpus(name, tokenizer, longest_prompt=longest)
    place = from_here(folder, Path(name.removeprefix(LOCAL)).expanduser())
    return replace(load_corpus(f"{LOCAL}{place}", tokenizer, longest_prompt=longest), name=name)


def from_here(folder: Path, path: Path) -> Path:
    """A path of the run: as it is, or where the run was made if nothing is there."""
    if path.is_absolute() or path.exists():
        return path
    places = made_at(folder, "working_folder", path)
    return places[0] / path if places else path


def run_tokenizer(folder: Path) -> Tokenizer:
    """The run's tokenizer. Raises: StoreError, TokenizerError."""
    name = tokenizer_name(folder)
    if name.startswith(HF):
        name = f"{HF}{from_here(folder, Path(name.removeprefix(HF)))}"
    return load_tokenizer(name)


def tokenizer_name(folder: Path) -> str:
    """Raises: StoreError where the run's environment does not tell it."""
    try:
        history = read_history(folder)
    except FileError:
        history = None
    name = history.identity.get("tokenizer_name") if history else None
    if not isinstance(name, str):
        raise StoreError(f"{folder / ENVIRONMENT}: does not tell the run's tokenizer")
    return name


def find_row(rows: list[Row], key: str) -> Row:
    """The row whose key (or pair) begins with `key`. Raises: StoreError unless it is one."""
    found = [row for row in rows if row.key.startswith(key)]
    found = found or [row for row in rows if row.pair.startswith(key)]
    if not found:
        raise StoreError(f"key: no row key starts with {key}; keys are in rows.jsonl")
    if len({row.pair for row in found}) > 1:
        raise StoreError(f"key: {len(found)} row keys start with {key!r}; give more digits")
    return found[0]


def show_lines(folder: Path, key: str) -> Iterator[str]:
    """The question as a page of text: its place, its needle in the text, every arm's answer."""
    archive = open_repeat(folder, key)
    row = find_row(archive.rows, key)
    stream, trial = archive.places[row.pair]
    yield (
        f"{trial.family} ({trial.templates}) in {stream.corpus}, layout {row.layout}, repeat "
        f"{stream.repeat}, stream {stream.index}, corpus tokens from {stream.offset}"
    )
    depth = "none (control)" if trial.depth is None else f"{trial.depth:.0%}"
    yield f"length {trial.length} tokens, of them question {len(trial.question_ids)}; depth {depth}"
    yield from needle_lines(archive, stream, trial)
    yield f"[{trial.cut}..{trial.length}) question:{trial.fact.question}"
    yield f"gold: {', '.join(trial.fact.gold)}"
    for other in archive.rows:
        if other.pair == row.pair:
            said = other.error or repr(other.answer)
            yield f"{other.arm} ({other.key}): {other.outcome}: {said}"


def needle_lines(archive: Archive, stream: Stream, trial: Trial) -> Iterator[str]:
    """Each planted piece with its token indices and the text about it."""
    prompt = archive.context(stream).prompt(trial)
    decode = archive.materials.tokenizer.decode
    for start, end in trial.spans:
        first, last = max(0, start - AROUND), min(trial.cut, end + AROUND)
        yield f"[{first}..{start}) …{decode(prompt[first:start].tolist())}"
        yield f"[{start}..{end}) >>>{decode(prompt[start:end].tolist())} <<<"
        yield f"[{end}..{last}) {decode(prompt[end:last].tolist())}…"
