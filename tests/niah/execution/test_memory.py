"""Memory that is left: the machine's, or less where a container says so."""

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from niah.execution import memory
from niah.execution.memory import free_bytes, measured_growth

GB = 10**9
STAT = "anon 5\ninactive_file 500000000\ntotal_inactive_file 500000000\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def group(folder: str, limit: str, used: int, version: int = 2) -> dict[str, str]:
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    return {
        f"{folder}/{names[0]}": f"{limit}\n",
        f"{folder}/{names[1]}": f"{used}\n",
        f"{folder}/memory.stat": STAT,
    }


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory()._replace(available=64 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)


def test_a_machine_without_groups_has_what_is_available(tmp_path: Path) -> None:
    assert free_bytes(root=tmp_path) == 64 * GB


@pytest.mark.parametrize(
    ("line", "mount", "version"),
    [("0::/", "sys/fs/cgroup", 2), ("4:memory:/", "sys/fs/cgroup/memory", 1)],
)
def test_a_containers_limit_counts_without_what_can_be_reclaimed(
    tmp_path: Path, line: str, mount: str, version: int
) -> None:
    write(tmp_path, {"proc/self/cgroup": f"5:devices:/x\n{line}\n"})
    write(tmp_path, group(mount, str(8 * GB), 3 * GB, version))
    assert free_bytes(root=tmp_path) == 5 * GB + GB // 2


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/outer/inner\n"})
    write(tmp_path, group("sys/fs/cgroup/outer/inner", "max", GB))
    write(tmp_path, group("sys/fs/cgroup/outer", str(4 * GB), 2 * GB))
    assert free_bytes(root=tmp_path) == 2 * GB + GB // 2


def test_a_path_of_the_host_does_not_hide_the_mounted_group(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/docker/0123\n"})
    write(tmp_path, group("sys/fs/cgroup", str(2 * GB), GB))
    assert free_bytes(root=tmp_path) == GB + GB // 2


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n"})
    write(tmp_path, group("sys/fs/cgroup", str(GB), 3 * GB))
    assert free_bytes(root=tmp_path) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts peaks anew")
def test_a_peak_outlasts_what_was_freed() -> None:
    with measured_growth("cpu") as growth:
        held = np.ones(8_000_000)
        del held
    assert growth.bytes is not None
    assert 60_000_000 < growth.bytes < 200_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts peaks anew")
def test_an_earlier_peak_does_not_count() -> None:
    held = np.ones(16_000_000)
    del held
    with measured_growth("cpu") as growth:
        small = np.ones(2_000_000)
        del small
    assert growth.bytes is not None
    assert 14_000_000 < growth.bytes < 60_000_000


def test_a_system_without_a_count_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "clear_refs")
    with measured_growth("cpu") as growth:
        pass
    assert growth.bytes is None
