"""What a run was measured on: machine, versions, threads, kernels and the commit of the code."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("niah-harness", "torch", "numba", "numpy", "tokenizers", "transformers")
ROOT = Path(__file__).parents[2]
GIT_SECONDS = 10


def environment() -> dict[str, Any]:
    """The facts of this process. None: not known."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "kernels": kernels(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        **revision(ROOT),
    }


def threads() -> int | None:
    """Threads that torch computes with; None where torch is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def kernels() -> str | None:
    """Which path inference on the CPU takes."""
    if "torch" not in sys.modules:
        return None
    from models.kernels import describe

    return describe()


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def revision(root: Path) -> dict[str, Any]:
    """`commit` of a source checkout, and whether its files differ from it (`dirty`)."""
    commit = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, or it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
