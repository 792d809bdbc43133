"""The token cache: built once, mapped after, rebuilt when incomplete, safe for two processes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from haystacks.corpora import token_cache

U16 = np.dtype(np.uint16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIAH_CACHE", str(tmp_path))
    return tmp_path / "tokens"


def chunks() -> Iterator[list[int]]:
    yield [1, 2, 3]
    yield []
    yield [65535]


def never() -> Iterator[list[int]]:
    raise AssertionError("built again")


def test_a_stream_is_built_once_and_mapped_read_only() -> None:
    assert token_cache.load_or_build("a", chunks, U16).tolist() == [1, 2, 3, 65535]
    again = token_cache.load_or_build("a", never, U16)
    assert isinstance(again, np.memmap)
    assert again.tolist() == [1, 2, 3, 65535]
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 9


@pytest.mark.parametrize("damage", ["no json", "short", "no npy", "torn json", "a changed id"])
def test_a_damaged_stream_is_built_again(own_cache: Path, damage: str) -> None:
    token_cache.load_or_build("a", chunks, U16)
    if damage == "no json":
        (own_cache / "a.json").unlink()
    elif damage == "torn json":
        (own_cache / "a.json").write_text('{"num_to')
    elif damage == "no npy":
        (own_cache / "a.npy").unlink()
    elif damage == "a changed id":
        data = bytearray((own_cache / "a.npy").read_bytes())
        data[-1] ^= 1
        (own_cache / "a.npy").write_bytes(data)
    else:
        (own_cache / "a.npy").write_bytes((own_cache / "a.npy").read_bytes()[:-2])
    assert token_cache.load_or_build("a", chunks, U16).tolist() == [1, 2, 3, 65535]
    assert token_cache.load_or_build("a", never, U16).tolist() == [1, 2, 3, 65535]


def test_a_failed_build_leaves_nothing_behind(own_cache: Path) -> None:
    def failing() -> Iterator[list[int]]:
        yield [1]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        token_cache.load_or_build("a", failing, U16)
    assert list(own_cache.iterdir()) == []


def test_an_id_too_large_for_the_type_is_refused() -> None:
    with pytest.raises(ValueError, match="outside uint16"):
        token_cache.load_or_build("a", lambda: [[65536]], U16)


def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("NIAH_CACHE", str(file))
    with pytest.raises(token_cache.CacheError, match=r"NIAH_CACHE: .*file"):
        token_cache.load_or_build("a", chunks, U16)


def test_an_empty_stream_is_built_again() -> None:
    assert not len(token_cache.load_or_build("a", list, U16))
    assert token_cache.load_or_build("a", chunks, U16).tolist() == [1, 2, 3, 65535]


@pytest.mark.parametrize("lost", ["no home", "a home that is a file"])
def test_without_a_home_tokens_go_to_a_temporary_folder_with_one_warning(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NIAH_CACHE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if lost == "no home":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # no entry: a KeyError
    else:
        (tmp_path / "home").write_text("")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    token_cache.temporary_folder.cache_clear()
    for key in ("a", "b"):
        assert token_cache.load_or_build(key, chunks, U16).tolist() == [1, 2, 3, 65535]
    token_cache.temporary_folder.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set NIAH_CACHE" in caplog.text
    (folder,) = tmp_path.glob("niah-tokens-*")
    assert {file.name for file in folder.glob("*.npy")} == {"a.npy", "b.npy"}


def test_types_follow_the_vocabulary() -> None:
    assert token_cache.dtype_for(65536) == np.uint16
    assert token_cache.dtype_for(65537) == np.uint32


def test_two_processes_may_build_the_same_stream_at_once() -> None:
    code = (
        "import numpy as np; from haystacks.corpora.token_cache import load_or_build\n"
        "def chunks():\n"
        "    for i in range(200): yield np.full(1000, i)\n"
        "s = load_or_build('race', chunks, np.dtype(np.uint16))\n"
        "assert s.shape == (200000,) and s[-1] == 199\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0, 0]
