"""Text to token ids and back, with a fingerprint that covers all that decides the ids.

Holds the bundled byte-level BPE and its training. `encode` never adds a special token and never
reads one out of a text: what is planted is exactly what was written.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from haystacks.chat_template import ChatTemplate, TokenizerError

__all__ = [
    "BUNDLED_NAME",
    "FastTokenizer",
    "Tokenizer",
    "TokenizerError",
    "load_tokenizer",
    "tokenises_back",
    "train_bpe",
]

BUNDLED_NAME = "bundled-bpe-2048"
BUNDLED_FILE = Path(__file__).parent / "bpe2048.json"
BUNDLED_VOCAB_SIZE = 2048
# Raise it when the same definition comes to give other ids for a text.
CONTROL_RULE = "control tokens are text, v1"
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer(Protocol):
    """What haystacks and sweeps need of a tokenizer.

    `fingerprint`: 16 hex digits of what decides ids. `special_ids`: ids that no text gives, but
    for the one of unknown characters. `start_ids`: what the tokenizer itself puts before a text
    (most often one token, BOS); `bos_id`: the first of them, None if there is none. `eos_ids`:
    what ends a text or a turn of a chat. `starts_character`: [vocabulary] bool, False for a token
    whose first byte continues a character of UTF-8.
    """

    name: str
    fingerprint: str
    vocab_size: int
    special_ids: frozenset[int]
    start_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]

    @property
    def bos_id(self) -> int | None: ...

    @property
    def starts_character(self) -> NDArray[np.bool_]: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; a control token spelled in it stays text, and none is added.

        Raises TokenizerError where the vocabulary leaves no other token for such a spelling.
        """

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a chat template's text, in which control tokens are what they spell."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens, if any are among them, are kept.

        Where `ids` begin or end inside a character, its bytes come out as U+FFFD.
        """

    def chat_texts(self, system: str, user: str, answer_prefix: str) -> tuple[str, str] | None:
        """`ChatTemplate.texts` of the tokenizer's own template; None if it has none."""


class FastTokenizer:
    """A Hugging Face `tokenizers` tokenizer, bundled or taken from a transformers tokenizer.

    Special are the tokens that its definition calls so, and those that its chat template spells.
    """

    def __init__(
        self,
        name: str,
        rust: RustTokenizer,
        *,
        eos_ids: Sequence[int] = (),
        template: ChatTemplate | None = None,
    ) -> None:
        rust.no_padding()
        rust.no_truncation()
        self.name = name
        self.start_ids = _start_ids(rust)
        self.eos_ids = tuple(dict.fromkeys(eos_ids))
        self.vocab_size: int = rust.get_vocab_size(with_added_tokens=True)
        self._template = template
        rust.post_processor = None  # adds special tokens only, which nobody asks it for
        rust = _for_fragments(rust, template)
        self._definition = rust.to_str()
        self.special_ids = frozenset(
            i for i, token in rust.get_added_tokens_decoder().items() if token.special
        )
        self.fingerprint = self._fingerprint()
        rust.encode_special_tokens = True
        self._rust = rust
        unknown = _unknown_id(json.loads(self._definition)["model"], rust)
        self._controls = self.special_ids - {unknown}

    @property
    def bos_id(self) -> int | None:
        return self.start_ids[0] if self.start_ids else None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        if not self._controls.isdisjoint(ids):
            spelled = self._rust.id_to_token(next(i for i in ids if i in self._controls))
            raise TokenizerError(
                f"tokenizer: {self.name!r} can only read {spelled!r} in a text as its control "
                "token; take it out of the text, or use another tokenizer"
            )
        return ids

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = self._with_specials.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        plain = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
        text: str = self._rust.decode(plain, skip_special_tokens=False)
        return text

    def chat_texts(self, system: str, user: str, answer_prefix: str) -> tuple[str, str] | None:
        return self._template.texts(system, user, answer_prefix) if self._template else None

    @cached_property
    def starts_character(self) -> NDArray[np.bool_]:
        vocabulary = self._rust.get_vocab(with_added_tokens=True)
        added = self._rust.get_added_tokens_decoder()
        kinds = _decoder_kinds(json.loads(self._definition)["decoder"])
        letters = _byte_letters() if "ByteLevel" in kinds else {}
        starts = np.ones(max(vocabulary.values(), default=-1) + 1, dtype=np.bool_)
        for token, index in vocabulary.items():
            if index not in added and _continues(token, letters, "ByteFallback" in kinds):
                starts[index] = False
        return starts

    @cached_property
    def _with_specials(self) -> RustTokenizer:
        return RustTokenizer.from_str(self._definition)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self._definition.encode())
        if self.special_ids:
            digest.update(CONTROL_RULE.encode())
        return digest.hexdigest()[:16]


def tokenises_back(tokenizer: Tokenizer, ids: NDArray[Any]) -> bool:
    """Whether whoever reads the text of `ids`, control tokens as such, gets these very ids.

    False where a needle or a question meets the text so that tokens of both would join, where the
    text spells a control token, or where the tokenizer does not give text back as it was.
    """
    return tokenizer.encode_template(tokenizer.decode(ids)) == [int(i) for i in ids]


def load_tokenizer(name: str, revision: str | None = None) -> FastTokenizer:
    """The tokenizer called `name`: "bundled-bpe-2048", "hf:PATH_OR_NAME" or "hf:NAME@REVISION".

    `revision`: a branch, tag or commit of the hub, if the name has none; the loaded tokenizer's
    name then says it. Raises TokenizerError for an unknown name, or where the hf extra or its
    files are missing.
    """
    return _load(f"{name}@{revision}" if revision and "@" not in name else name)


@lru_cache(maxsize=8)
def _load(name: str) -> FastTokenizer:
    if name == BUNDLED_NAME:
        return FastTokenizer(name, RustTokenizer.from_file(str(BUNDLED_FILE)))
    kind, _, location = name.partition(":")
    if kind == "server":
        raise TokenizerError(
            f"tokenizer: {name!r} is a server's own, which only a run asks; name the same "
            "tokenizer as hf:NAME in the arm's options to work without the server"
        )
    if kind != "hf" or not location:
        raise TokenizerError(f"tokenizer: {name!r} is not {BUNDLED_NAME!r} or 'hf:PATH_OR_NAME'")
    loaded = transformers_tokenizer(location)
    rust = RustTokenizer.from_str(loaded.backend_tokenizer.to_str())
    template = ChatTemplate(name, loaded) if loaded.chat_template else None
    ends = [] if loaded.eos_token_id is None else [int(loaded.eos_token_id)]
    tokenizer = FastTokenizer(name, rust, eos_ids=ends, template=template)
    if template is not None:
        following = tokenizer.encode_template(template.after_answer())[:1]
        tokenizer.eos_ids += tuple(
            i for i in following if i in tokenizer.special_ids and i not in ends
        )
    return tokenizer


def _hub_answers(name: str) -> bool:
    """Whether the hub is reached. transformers would ask a hub that is not for a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except HfHubHTTPError:  # it says that there is no such file, or that it may not be seen
        return True
    except Exception:  # of its client, which changes from release to release; no name of the hub
        return False
    return True


def transformers_tokenizer(location: str) -> Any:
    """The fast tokenizer of a folder or of the hub. Raises: TokenizerError."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise TokenizerError(
            f"tokenizer: 'hf:{location}' needs transformers: in a checkout, pip install '.[hf]'"
        ) from None
    place, revision = location, ""
    if "@" in location and not Path(location).exists():
        place, _, revision = location.rpartition("@")
    options: dict[str, Any] = {}
    if place.endswith(".gguf"):
        place, _, options["gguf_file"] = place.rpartition("/")
    here = Path(place).is_dir()
    options["local_files_only"] = here or not _hub_answers(place)
    try:
        loaded = AutoTokenizer.from_pretrained(
            place, revision=revision or "main", trust_remote_code=False, **options
        )
    except (ImportError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        if options["local_files_only"] and not here:
            reason = (
                f"there is no folder {place} here, its files are not in the hub's cache, and the "
                "hub was not reached: correct the path or the name, or connect to a network"
            )
        raise TokenizerError(f"tokenizer: 'hf:{location}' cannot be loaded: {reason}") from None
    if getattr(loaded, "backend_tokenizer", None) is None:
        raise TokenizerError(f"tokenizer: 'hf:{location}' has no fast (tokenizers) version")
    return loaded


def _start_ids(rust: RustTokenizer) -> tuple[int, ...]:
    """The ids that the tokenizer's own rule puts before a text."""
    whole: list[int] = rust.encode("a", add_special_tokens=True).ids
    text: list[int] = rust.encode("a", add_special_tokens=False).ids
    found = (n for n in range(len(whole)) if text and whole[n : n + len(text)] == text)
    return tuple(whole[: next(found, 0)])


def _for_fragments(rust: RustTokenizer, template: ChatTemplate | None) -> RustTokenizer:
    """`rust` for texts that stand anywhere in a prompt, with every control token marked special.

    No space is put before a text or taken from the beginning of a decoded one: a haystack and its
    needles are no beginnings. Control tokens are those that are special, and the added tokens that
    the chat template spells, as <think>.
    """
    definition = json.loads(rust.to_str())
    before = json.dumps(definition)
    spelled = template.source if template else ""
    for token in definition["added_tokens"]:
        if token["content"].strip() and token["content"] in spelled:
            token["special"] = True
    normalizer = definition["normalizer"]
    definition["normalizer"] = _without(normalizer, "Prepend", "normalizers")
    if definition["normalizer"] != normalizer:
        definition["decoder"] = _without(definition["decoder"], "Strip", "decoders")
    splitting = _parts(definition["pre_tokenizer"], "pretokenizers")
    for part in (*splitting, *_parts(definition["decoder"], "decoders")):
        if "prepend_scheme" in part:
            part["prepend_scheme"] = "never"
    for part in splitting:
        if "add_prefix_space" in part:
            part["add_prefix_space"] = False
    if json.dumps(definition) == before:
        return rust
    return RustTokenizer.from_str(json.dumps(definition, ensure_ascii=False))


def _parts(step: dict[str, Any] | None, members: str) -> list[dict[str, Any]]:
    """A step of a definition, and those that it consists of."""
    return [step, *step.get(members, [])] if step else []


def _without(step: dict[str, Any] | None, kind: str, members: str) -> dict[str, Any] | None:
    """A step of a definition, all but its members of a kind."""
    if step is None or step["type"] == kind:
        return None
    if members not in step:
        return step
    return step | {members: [part for part in step[members] if part["type"] != kind]}


def _unknown_id(model: Mapping[str, Any], rust: RustTokenizer) -> int | None:
    token = model.get("unk_token")
    index: int | None = rust.token_to_id(token) if token else model.get("unk_id")
    return index


def _continues(token: str, letters: Mapping[str, int], byte_tokens: bool) -> bool:
    """Whether the first byte of a token's text continues a character of UTF-8."""
    found = BYTE_TOKEN.fullmatch(token) if byte_tokens else None
    byte = int(found[1], 16) if found else letters.get(token[:1], 0)
    return 0x80 <= byte < 0xC0


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    return {part["type"] for part in _parts(decoder, "decoders")}


def _byte_letters() -> dict[str, int]:
    """The byte for which each letter stands in a byte-level vocabulary.

    Printable bytes of Latin-1 stand for themselves, the others for the letters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    letters = {chr(byte): byte for byte in own}
    return letters | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def train_bpe(lines: Iterable[str], vocab_size: int = BUNDLED_VOCAB_SIZE) -> RustTokenizer:
    """Byte-level BPE of exactly `vocab_size` entries, every digit a token, no special tokens.

    The procedure has no randomness: the same lines give the same file.
    """
    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    rust.train_from_iterator(lines, trainer=trainer)
    if rust.get_vocab_size() != vocab_size:
        raise TokenizerError(f"training text gave {rust.get_vocab_size()} of {vocab_size} entries")
    return rust
