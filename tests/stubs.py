"""Commands for shell scripts under test: what they would do long is only written down."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = f"""#!/bin/sh
if [ "$1 $2" != "-m pip" ]; then exec {sys.executable} "$@"; fi
echo "$*" >>pip.log
if [ "$3 $4" = "cache dir" ]; then echo the/cache; fi
"""
NIAH = f"""#!/bin/sh
if [ "$1" = run ]; then echo "$*" >>run.log; exit "$SWEEP_CODE"; fi
exec {sys.executable} -m niah "$@"
"""


def stubbed(folder: Path, sweep_code: int = 0) -> dict[str, str]:
    """An environment where `python -m pip` and `niah run` append their arguments to pip.log and
    run.log in the working folder, and the latter ends with `sweep_code`; all else is real."""
    for name, script in (("python", PYTHON), ("niah", NIAH)):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(script, encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SWEEP_CODE": str(sweep_code),
    }


def logged(folder: Path, name: str) -> list[str]:
    """The calls of a stub, in order."""
    path = folder / f"{name}.log"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
