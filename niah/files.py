"""Files written whole or not at all, and YAML and JSON read with names told apart."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from niah.errors import FileError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put `content` (text: UTF-8) in the place of `path`, whole or not at all.

    Raises: OSError; a file that was there is unchanged then.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` if the block ends without an exception.

    A link is followed. A device or a pipe is written to directly, as is /dev/stdout.

    Raises: OSError that names `path`.
    """
    is_other = path.exists() and not path.is_file() and not path.is_dir()
    if is_other or path.parent == Path("/dev"):
        yield path
        return
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        if error.filename not in (None, str(partial), partial):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises: FileError; of a name given twice, too."""
    try:
        return yaml.load(read_text(path), UniqueNames)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise FileError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises: FileError; of a name given twice, too."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=unique_names)
    except ValueError as error:
        raise FileError(f"{path}: is not JSON: {error}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The names and values of a JSON file, or of a YAML file if its suffix says so.

    Raises: FileError.
    """
    value = read_yaml(path) if path.suffix in (".yaml", ".yml") else read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path}: should hold names and values, holds {value!r:.40}")
    return value


def read_text(path: Path) -> str:
    """A UTF-8 file's text. Raises: FileError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 text: {error.reason} at {error.start}") from None


class UniqueNames(yaml.SafeLoader):
    """YAML without code, in which a mapping names nothing twice."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            key, line = (name.tag, name.value), name.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(
                    f"line {line}: {name.value!r} is given in line {lines[key]} already; "
                    "give it once"
                )
            lines[key] = line
        return node


def unique_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises: ValueError where a name is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice; give it once")
    return found
