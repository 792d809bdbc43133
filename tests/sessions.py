"""Short forms of what `niah` does with a session, for tests."""

from collections.abc import Mapping

from models.protocols import Decoding, Piece, Session, TokenIds


def spelled(ids: TokenIds) -> str:
    """Ids as numbers: the text of a tokenizer that tests need not load."""
    return "".join(f" {int(token)}" for token in ids)


def piece(ids: TokenIds) -> Piece:
    return Piece(ids, spelled)


def greedy_ids(session: Session, max_new_tokens: int, *stop: str) -> list[int]:
    """The ids of an answer."""
    return list(session.generate(Decoding(max_new_tokens, spelled, stop)).ids)


def held(session: Session) -> Mapping[str, int]:
    """Bytes by kind."""
    found = session.usage().cache_bytes
    assert found is not None
    return found


def held_total(session: Session) -> int:
    return sum(held(session).values())
