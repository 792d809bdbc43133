"""The bundled BPE: lossless, digits single, nothing added; other tokenizers refused clearly."""

import json
import logging
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers import Tokenizer as RustTokenizer

from haystacks.chat_template import PLACEHOLDER
from haystacks.tokenizer import (
    BUNDLED_FILE,
    BUNDLED_NAME,
    FastTokenizer,
    TokenizerError,
    load_tokenizer,
    tokenises_back,
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


# Two invented templates of the usual shapes: one with a switch for thinking, one strict one.
THINKING = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system here') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}[answer]{% endif %}"
)
CONTROLS = ["<|endoftext|>", "<bos>", "<|turn|>", "<|end|>"]


def byte_level_with_controls() -> RustTokenizer:
    """The bundled vocabulary, a BOS before every text, controls, and one that is not called so."""
    rust = RustTokenizer.from_file(str(BUNDLED_FILE))
    rust.add_special_tokens(CONTROLS)
    rust.add_tokens([AddedToken("<think>", special=False), AddedToken("    ", special=False)])
    rust.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", rust.token_to_id("<bos>"))]
    )
    return rust


def byte_fallback() -> RustTokenizer:
    """Like SentencePiece: a few letters, every other character as its bytes."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "▁", "a", "b"])}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    rust = RustTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    rust.normalizer = normalizers.Replace(" ", "▁")
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    rust.add_special_tokens(["<unk>", "<s>"])
    return rust


def saved(folder: Path, rust: RustTokenizer, **settings: object) -> str:
    """The name of `rust` saved as a transformers tokenizer."""
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=rust, **settings)
    fast.save_pretrained(folder)
    return f"hf:{folder}"


@given(st.lists(st.sampled_from([*CONTROLS, "<think>", "<s>", "ä", " a", "<", "|>"]), max_size=8))
def test_a_control_token_spelled_in_a_text_stays_text(parts: list[str]) -> None:
    text = "".join(parts)
    tokenizers = (
        FastTokenizer("bytes", byte_level_with_controls()),
        FastTokenizer("fallback", byte_fallback()),
    )
    for tokenizer in tokenizers:
        ids = tokenizer.encode(text)
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text


def test_what_the_chat_template_spells_is_a_control_token_too(tmp_path: Path) -> None:
    rust = byte_level_with_controls()
    name = saved(tmp_path, rust, chat_template=THINKING, eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(name)
    assert rust.token_to_id("<think>") in tokenizer.special_ids
    assert rust.token_to_id("    ") not in tokenizer.special_ids
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode("a <think> b<|end|>"))
    assert tokenizer.decode(tokenizer.encode("a <think> b<|end|>")) == "a <think> b<|end|>"
    assert tokenizer.encode_template("<|turn|>a<think>") == [
        rust.token_to_id("<|turn|>"),
        *tokenizer.encode("a"),
        rust.token_to_id("<think>"),
    ]


def test_a_vocabulary_that_has_no_other_token_for_a_control_is_refused_in_one_line() -> None:
    rust = RustTokenizer(models.WordLevel({"<s>": 0, "a": 1, "?": 2}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.add_special_tokens(["<s>", "?"])
    tokenizer = FastTokenizer("other", rust)
    assert tokenizer.encode("a b") == [1, 2]
    with pytest.raises(TokenizerError, match="'other' can only read '<s>'") as raised:
        tokenizer.encode("a <s> a")
    assert "\n" not in str(raised.value)


def test_what_begins_and_ends_a_text_is_known(tmp_path: Path) -> None:
    rust = byte_level_with_controls()
    ids = {token: rust.token_to_id(token) for token in CONTROLS}
    name = saved(tmp_path / "chat", rust, chat_template=THINKING, eos_token="<|endoftext|>")
    chat = load_tokenizer(name)
    assert chat.bos_id == ids["<bos>"]
    assert chat.start_ids == (ids["<bos>"],)
    assert chat.eos_ids == (ids["<|endoftext|>"], ids["<|end|>"])
    assert chat.encode("a") == BUNDLED.encode("a")
    bare = RustTokenizer.from_file(str(BUNDLED_FILE))
    bare.add_special_tokens(["<bos>"])  # known, and not put before a text
    plain = load_tokenizer(saved(tmp_path / "plain", bare, bos_token="<bos>"))
    assert (plain.bos_id, plain.start_ids, plain.eos_ids) == (None, (), ())
    assert (BUNDLED.bos_id, BUNDLED.eos_ids, BUNDLED.special_ids) == (None, (), frozenset())


def test_the_fingerprint_is_of_what_decides_ids(tmp_path: Path) -> None:
    def of(folder: str, change: str) -> str:
        rust = byte_level_with_controls()
        if change == "a BOS":
            rust.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        if change == "lower case":
            rust.normalizer = normalizers.Lowercase()
        if change == "an entry":
            rust.add_tokens(["entry"])
        return load_tokenizer(saved(tmp_path / folder, rust)).fingerprint

    assert of("one", "") == of("other", "") == of("third", "a BOS")
    assert len({of("a", ""), of("b", "lower case"), of("c", "an entry")}) == 3
    assert BUNDLED.fingerprint == "9f492aa8ae2131b7"  # rows of finished runs pair by it


def test_a_revision_is_part_of_the_name() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(TokenizerError, match="'hf:no such name@v1' cannot be loaded"):
        load_tokenizer("hf:no such name", revision="v1")


def test_a_hub_that_is_not_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers")
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens here
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        told = r"^tokenizer: 'hf:owner/no-such-name' .* the hub was not reached: correct [^\n]*$"
        with pytest.raises(TokenizerError, match=told):
            load_tokenizer("hf:owner/no-such-name")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path: Path) -> None:
    name = saved(tmp_path / "a@b", RustTokenizer.from_file(str(BUNDLED_FILE)))
    assert load_tokenizer(name).encode("the item") == BUNDLED.encode("the item")


def test_a_chat_template_gives_the_texts_around_what_is_read(tmp_path: Path) -> None:
    name = saved(tmp_path, byte_level_with_controls(), chat_template=THINKING)
    tokenizer = load_tokenizer(name)
    assert tokenizer.chat_texts("Be brief.", f"Read: {PLACEHOLDER}\nNow.", "It is") == (
        "<|turn|>system\nBe brief.<|end|>\n<|turn|>user\nRead: ",
        "\nNow.<|end|>\n<|turn|>assistant\n<think>\n\n</think>\n\nIt is",
    )
    assert tokenizer.chat_texts("", PLACEHOLDER, "") == (
        "<|turn|>user\n",
        "<|end|>\n<|turn|>assistant\n<think>\n\n</think>\n\n",
    )
    with pytest.raises(TokenizerError, match=r"needs one \{haystack\}"):
        tokenizer.chat_texts("", "nothing", "")
    assert BUNDLED.chat_texts("", PLACEHOLDER, "") is None


def test_a_template_without_a_system_gets_its_text_from_the_user(tmp_path: Path) -> None:
    name = saved(tmp_path, byte_level_with_controls(), chat_template=NO_SYSTEM, bos_token="<bos>")
    tokenizer = load_tokenizer(name)
    before, after = tokenizer.chat_texts("Be brief.", PLACEHOLDER, "") or ("", "")
    assert (before, after) == ("<bos>[user]Be brief.\n\n", "[answer]")
    assert tokenizer.encode_template(before)[:1] == [tokenizer.bos_id]


def test_a_template_that_loses_the_message_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, byte_level_with_controls(), chat_template="Hello.")
    with pytest.raises(TokenizerError, match="does not say the user's message exactly once"):
        load_tokenizer(name).chat_texts("", PLACEHOLDER, "")


def spaces_before_texts() -> list[RustTokenizer]:
    """Three ways in which tokenizers put a space before a text, of a few letters each."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "▁", "T", "h", "e", "▁T", "▁Th"])}
    merges = [("▁", "T"), ("▁T", "h")]
    prepended, first, always = (
        RustTokenizer(models.BPE(vocabulary, merges, unk_token="<unk>")) for _ in range(3)
    )
    prepended.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    prepended.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    for rust, scheme in ((first, "first"), (always, "always")):
        rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        rust.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return [prepended, first, always]


@given(st.lists(st.sampled_from(["The", " The", " ", "he"]), max_size=5))
def test_a_text_is_read_as_it_is_written_wherever_it_stands(parts: list[str]) -> None:
    text = "".join(parts)
    for rust in spaces_before_texts():
        tokenizer = FastTokenizer("spaces", rust)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode(f"he{text}")[2:] == ids or not text.startswith(" ")
    spaced = RustTokenizer.from_file(str(BUNDLED_FILE))
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert FastTokenizer("bytes", spaced).decode(FastTokenizer("b", spaced).encode(text)) == text


@given(TEXT)
def test_tokens_that_start_a_character_are_known_without_decoding(text: str) -> None:
    for tokenizer in (BUNDLED, FastTokenizer("fallback", byte_fallback())):
        ids = tokenizer.encode(text)
        starts = tokenizer.starts_character[ids]
        for cut in range(len(ids)):
            decoded = tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:])
            assert bool(starts[cut]) == (decoded == text), (text, cut)


def test_only_continuing_bytes_do_not_start_a_character() -> None:
    not_starts = np.flatnonzero(~FastTokenizer("x", byte_fallback()).starts_character)
    assert not_starts.tolist() == [5 + byte for byte in range(0x80, 0xC0)]


def test_a_text_that_tokens_would_join_across_does_not_tokenise_back() -> None:
    ids = np.array(BUNDLED.encode("t") + BUNDLED.encode("he secret"))
    assert not tokenises_back(BUNDLED, ids)
    assert tokenises_back(BUNDLED, np.array(BUNDLED.encode("the secret")))


def test_a_text_that_spells_a_control_token_does_not_tokenise_back() -> None:
    tokenizer = FastTokenizer("bytes", byte_level_with_controls())
    assert tokenises_back(tokenizer, np.array(tokenizer.encode_template("<bos>the secret")))
    assert not tokenises_back(tokenizer, np.array(tokenizer.encode("<bos>the secret")))


@pytest.mark.parametrize("name", ["gpt2", "hf:", ""])
def test_an_unknown_name_says_what_would_be_right(name: str) -> None:
    with pytest.raises(TokenizerError, match="'bundled-bpe-2048' or 'hf:PATH_OR_NAME'"):
        load_tokenizer(name)
