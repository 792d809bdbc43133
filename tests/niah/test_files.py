"""Files are whole or as they were; names given twice are refused; JSON is read as JSON."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from niah.errors import FileError
from niah.files import read_json, read_mapping, read_yaml, replacing, write_atomically


@pytest.mark.parametrize("content", ["ü 😀\n", b"\xff\x00", ""])
def test_what_is_written_is_there_and_nothing_else(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_atomically(path, content)
    expected = content if isinstance(content, bytes) else content.encode("utf-8")
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    def write(path: Path, error: OSError | None = None) -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            if error:
                raise error

    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"Is a directory: '.*/folder'$"):
        write(tmp_path / "folder")
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.txt'$"):
        write(tmp_path / "a.txt", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(FileNotFoundError, match="'another'"):
        write(tmp_path / "a.txt", FileNotFoundError(errno.ENOENT, "none", "another"))


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_atomically(pipe, "through")
    assert reader.communicate(timeout=20)[0] == b"through"
    assert pipe.is_fifo()


def test_standard_output_can_be_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from niah.files import write_atomically; "
        "write_atomically(Path('/dev/stdout'), 'said')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"said"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"said"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is given in line 1 already"),
        ("o:\n  x: 1\n  x: 1\n", "line 3: 'x' is given in line 2 already"),
        ("- {k: 1, k: 2}\n", "line 1: 'k' is given in line 1 already"),
    ],
)
def test_a_name_given_twice_is_refused_with_its_lines(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        read_yaml(path)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_merged_names_are_no_names_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n")
    assert read_yaml(path)["c"] == {"x": 2, "y": 3}


def test_json_names_given_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
    with pytest.raises(FileError, match="'c' is given twice"):
        read_json(path)


def test_json_is_read_as_json(tmp_path: Path) -> None:
    """An emoji is escaped as two halves, which YAML does not join."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"corpus": "file:😀.txt"}))
    assert "\\ud83d" in path.read_text()
    assert read_mapping(path) == {"corpus": "file:😀.txt"}


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"text"])
def test_what_holds_no_names_is_one_line_that_names_the_file(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name) as refused:
        read_mapping(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.json: cannot be read: No such file"):
        read_mapping(tmp_path / "a.json")
