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
