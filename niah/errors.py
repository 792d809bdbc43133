"""The exceptions that a user can cause and mend.

ValueError
└── NiahError            one line for the terminal, exit code 2
    ├── FileError        a file cannot be read, or does not hold what its name says
    ├── SpecError        the sweep's YAML is wrong
    ├── PlanError        the sweep cannot be laid out (text too short, model too short, memory)
    └── StoreError       the output folder cannot be read or written as asked
        ├── BusyError    another process is writing to it
        └── ChangedError the configuration lacks or changes what was asked there
"""

import errno


class NiahError(ValueError):
    """Something the user can mend; the message is one line and says how."""


class FileError(NiahError):
    """A file that cannot be read, or is not the YAML or JSON that it should be."""


class SpecError(NiahError):
    """A field of the sweep is missing, misspelt or out of range."""


class PlanError(NiahError):
    """A valid sweep that these models, texts or this machine cannot carry out."""


class StoreError(NiahError):
    """A run's folder that cannot be read or written."""


class BusyError(StoreError):
    """A run's folder that another process holds."""


class ChangedError(StoreError):
    """A run's folder that was asked what the new configuration lacks or changes."""


def can_be_mended(error: Exception) -> bool:
    """Whether a user caused `error`: by what was asked, or by a file or a full disk."""
    if isinstance(error, NiahError):
        return True
    from haystacks.chat_template import TokenizerError
    from haystacks.corpora.texts import CorpusError
    from haystacks.corpora.token_cache import CacheError
    from haystacks.needles.base import FamilyError
    from models.errors import ModelError

    ours = ModelError, CorpusError, FamilyError, TokenizerError, CacheError
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, ours)


def told(error: Exception) -> str:
    """What a user reads of an error that can be mended."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
