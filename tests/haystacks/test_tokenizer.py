"""The bundled BPE: lossless, digits single, nothing added; other tokenizers refused clearly."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers

from haystacks.tokenizer import (
    BUNDLED_FILE,
    BUNDLED_NAME,
    FastTokenizer,
    TokenizerError,
    load_tokenizer,
    train_bpe,
)

BUNDLED = load_tokenizer(BUNDLED_NAME)
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_any_text_survives_encoding(text: str) -> None:
    assert BUNDLED.decode(BUNDLED.encode(text)) == text


@given(TEXT)
def test_ids_are_within_the_vocabulary(text: str) -> None:
    assert all(0 <= i < BUNDLED.vocab_size for i in BUNDLED.encode(text))


@given(st.text(alphabet="0123456789 ab.-", max_size=40))
def test_every_digit_is_a_token_of_its_own(text: str) -> None:
    tokens = [BUNDLED.decode([i]) for i in BUNDLED.encode(text)]
    assert [t for t in tokens if any(c.isdigit() for c in t)] == [c for c in text if c.isdigit()]


def test_the_vocabulary_is_exactly_2048_without_special_tokens() -> None:
    definition = json.loads(BUNDLED_FILE.read_text())
    assert BUNDLED.vocab_size == len(definition["model"]["vocab"]) == 2048
    assert definition["added_tokens"] == []
    assert definition["post_processor"] is None
    assert BUNDLED.encode("") == []


def test_a_piece_encodes_the_same_alone_and_after_text() -> None:
    piece = " The secret code for amber falcon is 48213."
    text = "And God said, Let there be light: and there was light."
    assert BUNDLED.encode(text + piece) == BUNDLED.encode(text) + BUNDLED.encode(piece)


def test_training_has_no_randomness() -> None:
    lines = [f"the {word} of item\n" for word in ("code", "colour", "name", "lid", "lot", "mint")]
    assert train_bpe(lines, 270).to_str() == train_bpe(lines, 270).to_str()


def test_training_on_too_little_text_is_refused() -> None:
    with pytest.raises(TokenizerError, match="of 2048 entries"):
        train_bpe(["abc"])


def test_the_fingerprint_tells_vocabularies_apart() -> None:
    lines = [f"the {word} of item\n" for word in ("code", "colour", "name")]
    prints = {FastTokenizer("x", train_bpe(lines, size)).fingerprint for size in (257, 258)}
    assert len(prints) == 2
    assert all(len(p) == 16 for p in prints)


def test_special_tokens_of_another_tokenizer_are_known_and_not_added() -> None:
    rust = RustTokenizer(models.WordLevel({"<s>": 0, "a": 1, "?": 2}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.add_special_tokens(["<s>"])
    tokenizer = FastTokenizer("other", rust)
    assert tokenizer.special_ids == {0}
    assert tokenizer.encode("a a") == [1, 1]


def test_a_local_transformers_tokenizer_loads(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE), eos_token="<e>")
    fast.save_pretrained(tmp_path)
    loaded = load_tokenizer(f"hf:{tmp_path}")
    text = "the item 42 is naïve"
    assert loaded.encode(text) == BUNDLED.encode(text)
    assert loaded.vocab_size == 2049
    assert loaded.special_ids == {2048}
    assert loaded.fingerprint != BUNDLED.fingerprint


@pytest.mark.parametrize("name", ["gpt2", "hf:", ""])
def test_an_unknown_name_says_what_would_be_right(name: str) -> None:
    with pytest.raises(TokenizerError, match="'bundled-bpe-2048' or 'hf:PATH_OR_NAME'"):
        load_tokenizer(name)
