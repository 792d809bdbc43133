"""What a run says of its machine and its code."""

import subprocess
from pathlib import Path

import pytest

from niah.execution.environment import environment, revision

TOLD = ("cpu", "cores", "threads", "kernels", "python", "started", "versions")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "code.py").write_text("1\n")
    git(root, "add", "code.py")
    git(root, "commit", "--quiet", "--message", "one")
    return root


def test_the_commit_is_known_after_its_reference_is_packed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    git(checkout, "gc", "--quiet")
    assert revision(checkout) == {"commit": head, "dirty": False}


def test_the_commit_is_known_in_a_worktree(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "--quiet", str(tmp_path / "other"))
    assert revision(tmp_path / "other")["commit"] == git(checkout, "rev-parse", "HEAD")


def test_changed_code_is_told(checkout: Path) -> None:
    (checkout / "code.py").write_text("2\n")
    assert revision(checkout)["dirty"] is True


def test_installed_code_has_no_commit(tmp_path: Path) -> None:
    assert revision(tmp_path) == {"commit": None, "dirty": None}


def test_everything_that_decides_the_seconds_is_told() -> None:
    import torch

    found = environment()
    assert all(found[name] for name in TOLD)
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__
