"""Where compiled kernels are cached: where numba would, else in a temporary folder.

And what processor they are compiled for: the one that numba's environment variables name.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from models.kernels.compile import LANES, cache_places, choose_cache, features, forget_older

ROOT = Path(__file__).parents[3]


def test_a_place_that_can_be_written_to_is_left_to_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "as it was")
    (tmp_path / "file").write_text("")
    choose_cache([tmp_path / "file", tmp_path / "new" / "folder"])
    assert numba.config.CACHE_DIR == "as it was"


def test_without_such_a_place_there_is_a_temporary_folder_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    choose_cache([tmp_path / "file"])
    assert [Path(numba.config.CACHE_DIR)] == list(tmp_path.glob("niah-kernels-*"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set NUMBA_CACHE_DIR" in caplog.text


def test_without_a_home_there_is_no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # no entry: a KeyError
    assert [place.name for place in cache_places()] == ["__pycache__"]


def test_kernels_that_are_older_than_a_file_of_theirs_are_forgotten(tmp_path: Path) -> None:
    """Numba would keep a kernel whose own file is as it was."""
    times = {"kernel.py": 1, "old.nbi": 2, "used.py": 3, "new.nbi": 4, "old.1.nbc": 2}
    for name, seconds in times.items():
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    forget_older(tmp_path, tmp_path.glob("*.py"))
    assert {path.name for path in tmp_path.iterdir()} == set(times) - {"old.nbi"}
    forget_older(tmp_path / "no folder", tmp_path.glob("*.py"))


def test_a_change_of_what_a_kernel_calls_is_seen(tmp_path: Path) -> None:
    copy_models(tmp_path)
    code = (
        "import torch; from models.kernels.rows import normalize; "
        "print(float(normalize(torch.ones(1, 4), None, 0.0)[0, 0]))"
    )
    shared = tmp_path / "models" / "kernels" / "floats.py"
    rows = tmp_path / "models" / "kernels" / "rows.py"
    shared.write_text(shared.read_text() + "\n\n@kernel\ndef factor() -> float:\n    return 1.0\n")
    text = rows.read_text().replace(
        "from models.kernels.team",
        "from models.kernels.floats import factor\nfrom models.kernels.team",
    )
    rows.write_text(
        text.replace("out[t, c] = x[t, c] * inverse", "out[t, c] = factor() * x[t, c] * inverse")
    )
    assert called(code, tmp_path, HOME=str(tmp_path)).stdout == "1.0\n"
    shared.write_text(shared.read_text().replace("return 1.0", "return 3.0"))
    assert called(code, tmp_path, HOME=str(tmp_path)).stdout == "3.0\n"


def test_kernels_of_a_package_that_cannot_be_written_to_are_imported(tmp_path: Path) -> None:
    copy_models(tmp_path)
    no_folder = tmp_path / "models" / "kernels" / "__pycache__"
    no_folder.write_text("")  # so that no user can write into it, root neither
    code = (
        "import models.kernels.topk, models.kernels.compile as c; print(c.numba.config.CACHE_DIR)"
    )
    done = called(code, tmp_path, TMPDIR=str(tmp_path), HOME=str(no_folder))
    assert "niah-kernels-" in done.stdout
    assert done.stderr.count("set NUMBA_CACHE_DIR") == 1


def copy_models(folder: Path) -> None:
    """The package, without compiled kernels and checkpoints."""
    unwanted = shutil.ignore_patterns("__pycache__", "zoo")
    shutil.copytree(ROOT / "models", folder / "models", ignore=unwanted)


def called(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`code`, done by a new process with the folder's package."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_features_are_those_that_the_environment_names() -> None:
    assert features("+avx2,+fma,-avx512f") == {"avx2", "fma"}
    assert features("") == set()
    own = features(None)
    assert own
    assert (LANES == 16) == ("avx512f" in own)
