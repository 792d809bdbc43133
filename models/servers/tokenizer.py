"""The tokenizer of a server, asked over HTTP: `tokenizer: server`.

Has what `haystacks.tokenizer.Tokenizer` asks for. Texts are encoded by the server. What each id
spells is asked once, so that most ids are decoded here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError, ServerError
from models.servers.client import Client
from models.servers.probing import Vocabulary

MARK = "\n@@\n"  # between the texts of two ids
BATCH = 2048  # ids of which the texts are asked at once
MOST_IDS = 1 << 20
CUT = "\ufffd"  # a server's sign for bytes that are no whole character
PROBE = "Two words, 31415 and 0.5:\n\tdef naïve(x): return '漢字 🙂' + x\r\n  The END."


class Calls:
    """How one kind of server is asked. Raises: ServerError."""

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model

    def encode(self, text: str, starts: bool = False, controls: bool = False) -> list[int]:
        """`starts`: with what the server puts before a text. `controls`: control tokens that are
        spelled in it are read as such."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError

    def _asked(self, path: str, fields: Mapping[str, object], name: str) -> Any:
        data = self._client.run(self._client.call(path, fields)).result()
        if name not in data:
            raise ServerError(f"{path}: the server's answer holds no {name!r}")
        return data[name]

    def _ids(self, path: str, fields: Mapping[str, object]) -> list[int]:
        found = self._asked(path, fields, "tokens")
        if not isinstance(found, list) or any(type(i) is not int or i < 0 for i in found):
            raise ServerError(f"{path}: tokens should be a list of token ids")
        return found


class LlamaCppCalls(Calls):
    def encode(self, text: str, starts: bool = False, controls: bool = False) -> list[int]:
        fields = {"content": text, "add_special": starts, "parse_special": controls}
        return self._ids("/tokenize", fields)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._asked("/detokenize", {"tokens": list(ids)}, "content"))


class VLLMCalls(Calls):
    """vLLM reads control tokens that a text spells as such."""

    def encode(self, text: str, starts: bool = False, controls: bool = False) -> list[int]:
        fields = {"model": self._model, "prompt": text, "add_special_tokens": starts}
        return self._ids("/tokenize", fields)

    def decode(self, ids: Sequence[int]) -> str:
        fields = {"model": self._model, "tokens": list(ids)}
        return str(self._asked("/detokenize", fields, "prompt"))


CALLS: Mapping[str, type[Calls]] = {"llamacpp": LlamaCppCalls, "vllm": VLLMCalls}


class ServerTokenizer:
    """Implements `haystacks.tokenizer.Tokenizer`; fields are explained there.

    Args:
        name: of the tokenizer, as a run's files tell it.
        calls: asks the server.
        vocab_size: None where the server does not say it.
        ends: the texts of tokens that end a sequence.

    Raises: ServerError.
    """

    def __init__(
        self, name: str, calls: Calls, vocab_size: int | None, ends: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._calls = calls
        text = calls.encode("a")
        with_start = calls.encode("a", starts=True)
        here = (n for n in range(len(with_start)) if with_start[n : n + len(text)] == text)
        self.start_ids = tuple(with_start[: next(here, 0)])
        encoded = (calls.encode(end, controls=True) for end in ends)
        self.eos_ids = tuple(ids[0] for ids in encoded if len(ids) == 1)
        self.special_ids = frozenset(self.start_ids + self.eos_ids)
        self._pieces = spelled(calls, vocab_size)
        self.vocab_size = len(self._pieces)
        self.fingerprint = self._fingerprint()

    @property
    def bos_id(self) -> int | None:
        return self.start_ids[0] if self.start_ids else None

    @cached_property
    def starts_character(self) -> NDArray[np.bool_]:
        """False also for the first bytes of a cut character: no cut is made there."""
        return np.array([not piece.startswith(CUT) for piece in self._pieces], dtype=np.bool_)

    def encode(self, text: str) -> list[int]:
        return self._calls.encode(text) if text else []

    def encode_template(self, text: str) -> list[int]:
        return self._calls.encode(text, controls=True) if text else []

    def decode(self, ids: Iterable[int]) -> str:
        plain = [int(i) for i in ids]
        pieces = [self._pieces[i] for i in plain]
        return self._calls.decode(plain) if CUT in "".join(pieces) else "".join(pieces)

    def chat_texts(self, system: str, user: str, answer_prefix: str) -> tuple[str, str] | None:
        """None: servers do not give their templates in a form that is known here."""
        return None

    def _fingerprint(self) -> str:
        decides = [
            self._calls.encode(PROBE), self.start_ids, self.eos_ids, self._pieces,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def spelled(calls: Calls, vocab_size: int | None) -> list[str]:
    """What each id spells by itself; the vocabulary ends where a server spells nothing more."""
    mark = calls.encode(MARK)
    pieces: list[str] = []
    while len(pieces) < (vocab_size or MOST_IDS):
        stop = min(len(pieces) + BATCH, vocab_size or MOST_IDS)
        ids = range(len(pieces), stop)
        try:
            found = texts(calls, ids, mark)
        except ServerError:
            if vocab_size is not None or not pieces:
                raise
            break
        if vocab_size is None and not any(found):
            break
        pieces += found
    while vocab_size is None and pieces and not pieces[-1]:
        pieces.pop()
    return pieces


def texts(calls: Calls, ids: Sequence[int], mark: Sequence[int]) -> list[str]:
    """The texts of ids that are asked at once, in halves where the mark does not part them."""
    asked = [*mark, *(token for index in ids for token in (index, *mark))]
    found = calls.decode(asked).split(MARK)[1:-1]
    if len(found) == len(ids):
        return found
    if len(ids) == 1:
        return [calls.decode(asked).removeprefix(MARK).removesuffix(MARK)]
    half = len(ids) // 2
    return [*texts(calls, ids[:half], mark), *texts(calls, ids[half:], mark)]


def server_tokenizer(
    client: Client, dialect: str, model: str, known: Vocabulary
) -> ServerTokenizer:
    """Raises: ModelError where the server has no tokenizer to be asked."""
    if dialect not in CALLS:
        raise ModelError(
            f"options.tokenizer: got 'server', which dialect {dialect} cannot be asked for; "
            f"expected hf:NAME, or a server of {' or '.join(CALLS)}"
        )
    try:
        return ServerTokenizer(
            f"server:{model}", CALLS[dialect](client, model), known.size, known.ends
        )
    except ServerError as error:
        raise ModelError(f"options.tokenizer: got 'server', which failed: {error}") from None
