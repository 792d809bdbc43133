"""Corpora: checksums, licences, lengths, no repetition, no silent recycling, exact streams."""

import hashlib
import itertools
import json
import os
import re
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers

from haystacks.corpora import texts
from haystacks.corpora.external import resolve_name
from haystacks.corpora.registry import (
    Corpus,
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


def test_an_endless_text_is_as_long_as_the_longest_prompt_needs(tokenizer: FastTokenizer) -> None:
    usual = 1 << 21
    for longest, length in ((1024, usual), (usual, usual), (usual + 1, 1 << 23)):
        corpus = load_corpus("random-tokens", tokenizer, longest_prompt=longest)
        assert corpus.num_tokens == length


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


@pytest.mark.parametrize("content", ["学而时习之，不亦说乎？\n" * 40, "naïve 🙂🙃 café\n" * 40])
def test_the_boundaries_of_characters_are_where_the_text_can_be_cut(
    tmp_path: Path, tokenizer: FastTokenizer, content: str
) -> None:
    (tmp_path / "own.txt").write_text(content, encoding="utf-8")
    corpus = load_corpus(f"file:{tmp_path}/own.txt", tokenizer)
    boundaries = corpus.boundaries(0, corpus.num_tokens)
    assert len(boundaries) == corpus.num_tokens + 1
    for cut in range(0, corpus.num_tokens + 1, 7):
        halves = tokenizer.decode(corpus.ids[:cut]) + tokenizer.decode(corpus.ids[cut:])
        assert bool(boundaries[cut]) == (halves == content)
    assert (corpus.boundaries(5, 90) == boundaries[5:91]).all()


def test_only_the_bundled_pair_keeps_the_positions_of_finished_runs(
    tokenizer: FastTokenizer, tmp_path: Path
) -> None:
    assert load_corpus("kjv", tokenizer).starts_character is None
    assert load_corpus("random-tokens", tokenizer, 1 << 17).starts_character is None
    (tmp_path / "own.txt").write_text("a text")
    for name in (f"file:{tmp_path}/own.txt", f"mixed:kjv+file:{tmp_path}/own.txt"):
        assert load_corpus(name, tokenizer).starts_character is tokenizer.starts_character


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


def test_a_pipe_is_a_text_as_good_as_its_file(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    content = "one two three\n" * 50
    pipe, file = tmp_path / "pipe", tmp_path / "file.txt"
    os.mkfifo(pipe)
    file.write_text(content)
    writer = Thread(target=pipe.write_text, args=(content,))
    writer.start()
    piped = load_corpus(f"file:{pipe}", tokenizer)
    writer.join()
    again = load_corpus(f"file:{file}", tokenizer)
    assert tokenizer.decode(piped.ids) == tokenizer.decode(again.ids) == content
    assert piped.identity == again.identity


def test_tokens_and_fingerprint_are_of_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "changing.txt"
    path.write_text("first\n")
    text = find_text(f"file:{path}")
    path.write_text("second\n")
    assert "".join(text.open()) == "first\n"
    assert text.fingerprint == hashlib.sha256(b"first\n").hexdigest()[:16]


def test_a_text_that_gives_no_tokens_is_refused(tmp_path: Path) -> None:
    rust = RustTokenizer(models.WordLevel({"a": 0}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(CorpusError, match=r"blank\.txt: has no tokens for words"):
        load_corpus(f"file:{tmp_path}/blank.txt", FastTokenizer("words", rust))


def folder_of(place: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    return place


def test_a_folder_is_its_files_of_text_in_order(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    files = {
        "b.md": "# B",
        "a/z.rst": "Z\n",
        "a.txt": "ä\n",
        "c.py": "no = 1\n",
        ".hidden/x.txt": "no\n",
        "a/.y.md": "no\n",
        "empty.txt": "",
    }
    corpus = load_corpus(f"file:{folder_of(tmp_path / 'one', files)}", tokenizer)
    assert tokenizer.decode(corpus.ids) == "ä\nZ\n# B\n"
    moved = find_text(f"file:{folder_of(tmp_path / 'other', files)}")
    assert moved.fingerprint == corpus.fingerprint
    (tmp_path / "other" / "b.md").rename(tmp_path / "other" / "b.txt")
    assert find_text(f"file:{tmp_path}/other").fingerprint != corpus.fingerprint


@given(st.lists(st.text("a\n", max_size=3), min_size=2, max_size=3, unique=True))
def test_the_fingerprint_of_a_folder_is_of_names_and_contents(contents: list[str]) -> None:
    with TemporaryDirectory() as place:
        prints = {
            find_text(
                f"file:{folder_of(Path(place) / str(i), {'x.md': 'x', 'y.md': content})}"
            ).fingerprint
            for i, content in enumerate(contents)
        }
    assert len(prints) == len(contents)


@pytest.mark.parametrize(
    ("files", "message"),
    [({"a.py": "x"}, "holds no text in files .txt, .md, .rst"), ({"a.md": ""}, "holds no text")],
)
def test_a_folder_without_text_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(CorpusError, match=re.escape(message)):
        find_text(f"file:{folder_of(tmp_path, files)}")
    (tmp_path / "b.md").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match=r"b\.md' is not UTF-8"):
        find_text(f"file:{tmp_path}")


def test_two_spellings_of_a_file_are_one_name(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    file = tmp_path / "texts" / "a.txt"
    file.write_text("a\n")
    (tmp_path / "link.txt").symlink_to(file)
    spelled = ["texts/a.txt", "./texts/../texts/a.txt", "link.txt", str(file)]
    assert {resolve_name(f"file:{path}", tmp_path) for path in spelled} == {f"file:{file}"}
    derived = resolve_name("mixed:kjv+shuffled:file:link.txt", tmp_path)
    assert derived == f"mixed:kjv+shuffled:file:{file}"
    needles = resolve_name("file:n.jsonl?format=mrcr", tmp_path)
    assert needles == f"file:{tmp_path}/n.jsonl?format=mrcr"
    for other in ("kjv", "hf:a/b:text", "file:", "shuffled:legal"):
        assert resolve_name(other, tmp_path) == other


def test_a_path_of_home_without_a_home_is_refused() -> None:
    with pytest.raises(CorpusError, match="no home folder"):
        find_text("file:~nobody-of-this-name/a.txt")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("kjv", False),
        ("mixed:kjv+legal", False),
        ("shuffled:file:A", True),
        ("mixed:kjv+hf:A:b", True),
    ],
)
def test_a_text_of_the_users_is_known_by_its_content(
    name: str, own: bool, tokenizer: FastTokenizer
) -> None:
    corpus = Corpus(name, "0123", tokenizer.fingerprint, 1, np.zeros(1), "", "")
    assert corpus.identity == ("content:0123" if own else name)


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


def data_set(folder: Path, values: list[object]) -> str:
    folder.mkdir()
    lines = [json.dumps({"body": value, "n": i}) + "\n" for i, value in enumerate(values)]
    (folder / "train.jsonl").write_text("".join(lines))
    return f"hf:{folder}:body"


def test_rows_without_a_value_are_left_out(tmp_path: Path) -> None:
    text = find_text(data_set(tmp_path / "set", [None, "one", None, "", "two\n\n"]))
    assert "".join(text.open()) == "one\n\ntwo\n"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([["a", "b"], ["c"]], "holds a list in row 0"),
        ([None, {"a": "b"}], "holds a dict in row 1"),
        ([7, 8], "holds a int in row 0"),
        ([None, None], "is empty"),
    ],
)
def test_a_column_of_something_else_is_refused(
    tmp_path: Path, values: list[object], told: str
) -> None:
    with pytest.raises(CorpusError, match=told) as raised:
        find_text(data_set(tmp_path / "set", values))
    assert "\n" not in str(raised.value)


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
