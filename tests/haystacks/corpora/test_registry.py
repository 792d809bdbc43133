"""Corpora: checksums, licences, lengths, no repetition, no silent recycling, exact streams."""

import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from haystacks.corpora import texts
from haystacks.corpora.registry import (
    CorpusError,
    available_corpora,
    find_text,
    line_chunks,
    load_corpus,
)
from haystacks.tokenizer import FastTokenizer

BLOCK = 1000
MIN_EVALUATION_TOKENS = 1_100_000
GENERATED = ["legal", "agent-log", "needle-lines", "random-words", "random-tokens"]


def repeated_blocks(ids: np.ndarray, block: int = BLOCK) -> int:
    """How many windows of `block` ids occur more than once, at whatever offset.

    Polynomial hash modulo 2^64 over every window; equal hashes are compared in full.
    """
    powers = np.cumprod(np.full(len(ids), 0x9E3779B97F4A7C15, dtype=np.uint64))
    sums = np.cumsum(np.concatenate([np.zeros(1, np.uint64), powers * ids.astype(np.uint64)]))
    windows = (sums[block:] - sums[:-block]) * powers[::-1][block - 1 :]
    _, first, counts = np.unique(windows, return_index=True, return_counts=True)
    repeats = 0
    for index in first[counts > 1]:
        same = np.flatnonzero(windows == windows[index])
        one, other = ids[same[0] : same[0] + block], ids[same[1] : same[1] + block]
        repeats += bool((one == other).all())
    return repeats


def test_the_repetition_check_itself_finds_a_planted_repetition() -> None:
    ids = np.random.default_rng(0).integers(0, 2048, 20_000)
    assert repeated_blocks(ids) == 0
    ids[15_123 : 15_123 + BLOCK] = ids[2_000 : 2_000 + BLOCK]
    assert repeated_blocks(ids) == 1


@pytest.mark.parametrize("name", list(texts.BUNDLED))
def test_bundled_text_has_its_checksum_and_states_its_origin(name: str) -> None:
    text = find_text(name)
    content = "".join(text.open())
    assert (
        len(content)
        == json.loads((texts.CORPORA_FOLDER / "index.json").read_text())[name]["characters"]
    )
    provenance = (texts.CORPORA_FOLDER / "PROVENANCE.md").read_text()
    row = next(line for line in provenance.splitlines() if line.startswith(f"| `{name}` |"))
    assert text.licence in row
    assert text.fingerprint[:8] in row
    assert f"{len(content):,}" in row


def test_a_damaged_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = (texts.CORPORA_FOLDER / "python.txt.xz").read_bytes()
    (tmp_path / "kjv.txt.xz").write_bytes(other)
    (tmp_path / "index.json").write_bytes((texts.CORPORA_FOLDER / "index.json").read_bytes())
    monkeypatch.setattr(texts, "CORPORA_FOLDER", tmp_path)
    with pytest.raises(CorpusError, match="corpus kjv: sha256 4844ee52"):
        next(texts.bundled("kjv").open())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kjv", "postgresql", "python"])
def test_evaluation_corpora_are_long_enough_and_repeat_nothing(
    name: str, tokenizer: FastTokenizer
) -> None:
    corpus = load_corpus(name, tokenizer)
    assert corpus.num_tokens >= MIN_EVALUATION_TOKENS
    assert repeated_blocks(np.asarray(corpus.ids)) == 0


@pytest.mark.parametrize("name", GENERATED)
def test_generated_corpora_repeat_nothing(name: str, tokenizer: FastTokenizer) -> None:
    corpus = load_corpus(name, tokenizer, min_tokens=100_000)
    assert corpus.num_tokens == 1 << 17
    assert repeated_blocks(np.asarray(corpus.ids)) == 0


@pytest.mark.parametrize("name", ["legal", "random-tokens"])
def test_a_longer_stream_begins_with_the_shorter(name: str, tokenizer: FastTokenizer) -> None:
    short = load_corpus(name, tokenizer, min_tokens=1 << 17)
    long = load_corpus(name, tokenizer, min_tokens=(1 << 17) + 1)
    assert long.num_tokens == 1 << 18
    assert (long.ids[: 1 << 17] == short.ids).all()
    assert long.fingerprint == short.fingerprint


@pytest.mark.parametrize("name", ["legal", "agent-log"])
def test_generated_text_keeps_clear_of_needle_values(name: str) -> None:
    text = "".join(itertools.islice(find_text(name).open(), 40))
    words = "".join(c if c.isalnum() else " " for c in text).split()
    assert [word for word in words if word.isdigit() and len(word) == 5] == []


def test_a_stream_decodes_to_its_text(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    path = tmp_path / "own.txt"
    content = "Zwölf Boxkämpfer\r\njagen  Viktor.\n\n" * 5000
    path.write_bytes(content.encode())
    corpus = load_corpus(f"file:{path}", tokenizer)
    assert tokenizer.decode(corpus.ids) == content


def test_reading_past_the_end_is_an_error_unless_asked_for(
    tmp_path: Path, tokenizer: FastTokenizer
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("one two three\n")
    corpus = load_corpus(f"file:{path}", tokenizer)
    size = corpus.num_tokens
    assert corpus.read(0, size).tolist() == corpus.ids.tolist()
    with pytest.raises(CorpusError, match=f"tokens 1 to {size + 1} asked of {size}"):
        corpus.read(1, size)
    with pytest.raises(CorpusError, match="must be >= 0"):
        corpus.read(-1, 2)
    twice = corpus.read(1, 2 * size, recycle=True).tolist()
    assert twice == (corpus.ids.tolist() * 3)[1 : 1 + 2 * size]
    with pytest.raises(CorpusError, match=f"1000 tokens asked, it has {size}"):
        load_corpus(f"file:{path}", tokenizer, min_tokens=1000)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "is empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, tokenizer: FastTokenizer, content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as raised:
        load_corpus(f"file:{path}", tokenizer)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "bible", "file:", "hf:", "hf:squad", "shuffled:legal"])
def test_an_impossible_name_is_refused(name: str, tokenizer: FastTokenizer) -> None:
    with pytest.raises(CorpusError, match="corpus: "):
        load_corpus(name, tokenizer)


def test_shuffled_has_the_same_sentences_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    sentences = [f"This is sentence {i}." for i in range(500)]
    path.write_text(" ".join(sentences))
    lines = "".join(find_text(f"shuffled:file:{path}").open()).splitlines()
    assert sorted(lines) == sorted(sentences)
    assert lines != sentences


def test_mixed_takes_passages_in_turn_and_skips_none(tmp_path: Path) -> None:
    for name in "ab":
        lines = [f"{name} {i:05d} {'x' * 90}\n" for i in range(200)]
        (tmp_path / name).write_text("".join(lines))
    mixed = "".join(find_text(f"mixed:file:{tmp_path}/a+file:{tmp_path}/b").open()).splitlines()
    turns = [name for name, _ in itertools.groupby(line[0] for line in mixed)]
    assert turns == ["a", "b"] * (len(turns) // 2)
    assert [line for line in mixed if line[0] == "a"] == (tmp_path / "a").read_text().splitlines()


def test_a_local_data_set_is_read_by_column(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"body": f"row {i} of the set", "other": "no"} for i in range(50)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = load_corpus(f"hf:{folder}:body", tokenizer)
    assert tokenizer.decode(corpus.ids) == "".join(row["body"] + "\n" for row in rows)
    with pytest.raises(CorpusError, match="no column 'text'; it has body, other"):
        load_corpus(f"hf:{folder}:text", tokenizer)
    with pytest.raises(CorpusError, match="cannot be loaded"):
        load_corpus(f"hf:{tmp_path}/nothing:text", tokenizer)


def test_a_configuration_and_a_split_are_chosen(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    for name in ("prose", "verse"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"body": f"some {name}"}) + "\n")
    configurations = [
        {"config_name": name, "data_files": [{"split": "test", "path": f"{name}.jsonl"}]}
        for name in ("prose", "verse")
    ]
    card = f"---\n{yaml.safe_dump({'configs': configurations})}---\n"
    (tmp_path / "README.md").write_text(card)
    corpus = load_corpus(f"hf:{tmp_path}@verse:body:test", tokenizer)
    assert tokenizer.decode(corpus.ids) == "some verse\n"
    for wrong in (f"{tmp_path}:body:test", f"{tmp_path}@song:body:test", f"{tmp_path}@prose:body"):
        with pytest.raises(CorpusError, match="cannot be loaded"):
            load_corpus(f"hf:{wrong}", tokenizer)


@given(st.lists(st.text(alphabet="ab \n", max_size=20)), st.integers(1, 30))
def test_chunks_are_whole_lines_and_lose_nothing(pieces: list[str], chunk_chars: int) -> None:
    lines = [line for piece in pieces for line in piece.splitlines(keepends=True)]
    chunks = list(line_chunks(pieces, chunk_chars))
    assert "".join(chunks) == "".join(pieces) == "".join(lines)
    assert all(len(chunk) >= chunk_chars for chunk in chunks[:-1])


def test_every_form_is_listed() -> None:
    listed = available_corpora()
    assert {"manual", "kjv", "postgresql", "python", *GENERATED, "noise"} < set(listed)
    assert {"shuffled:NAME", "mixed:NAME+NAME", "file:PATH", "hf:NAME:COLUMN"} < set(listed)


def test_a_longer_stream_takes_no_more_memory(
    tokenizer: FastTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIAH_CACHE", str(tmp_path))  # other tests' streams need not be built
    peaks = []
    for length in (1 << 18, 1 << 21):
        tracemalloc.start()
        load_corpus("random-tokens", tokenizer, min_tokens=length)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
