"""Finds a model's files: in a folder, in the hub's cache on this machine, or on the hub.

transformers asks a hub that it does not reach again and again for half a minute, with a warning
each time. Here the hub is asked once.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers.utils.hub import cached_file

CONFIG = "config.json"


def local_path(location: str, name: str, revision: str | None) -> str | None:
    """The file's path on this machine; None where it is not here."""
    found: str | None = cached_file(
        location,
        name,
        revision=revision or "main",
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found


def absence(location: str, gguf_file: str | None, revision: str | None) -> str:
    """Why a model cannot be had, in words; "" where its file is here or on the hub.

    The hub is asked only for what can be a name of the hub: OWNER/NAME or NAME.
    """
    name = gguf_file or CONFIG
    if Path(location).is_dir():
        found = gguf_file is None or (Path(location) / gguf_file).is_file()
        return "" if found else f"there is no file {gguf_file} in {location}: {PUT}"
    nowhere = f"there is no folder {location} here"
    try:
        address = hf_hub_url(location, name, revision=revision)
    except HFValidationError:
        return f"{nowhere}: {PUT}"
    if local_path(location, name, revision):
        return ""
    try:
        get_hf_file_metadata(address)
    except HfHubHTTPError:  # the hub has answered: transformers says what
        return ""
    except Exception as error:  # of the client, which changes from release to release
        return f"{nowhere}, and the hub was not reached ({type(error).__name__}): {PUT}"
    return ""


PUT = (
    "make or download it, or correct the path, which begins at the working folder "
    "(a configuration's first lines may say where its model comes from)"
)
