"""Memory of this process and of a device: what is free, and what a block of code needed.

A container's limit is read from its control groups, of either version.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


class GroupFiles(NamedTuple):
    """Where a version of control groups is mounted, and how it names its files."""

    mount: str
    limit: str
    used: str
    reclaimable: str  # a line of memory.stat: file pages that the kernel gives up when asked


GROUPS_2 = GroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
GROUPS_1 = GroupFiles(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)


def give_back() -> None:
    """Return freed memory to the system, where the C library can: glibc keeps it for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


@dataclass
class Growth:
    """The most that a block of code held beyond what was held before; None: not measured."""

    bytes: int | None = None


@contextmanager
def measured_growth(device: str) -> Iterator[Growth]:
    """Measure the block's peak memory on `device`, as torch or, for the CPU, the kernel counts."""
    growth = Growth()
    give_back()
    before = reset_peak(device)
    yield growth
    after = peak_bytes(device)
    if before is not None and after is not None:
        growth.bytes = max(0, after - before)


def reset_peak(device: str) -> int | None:
    """Begin a new measurement; what is held now. None where the system cannot tell."""
    if device != "cpu":
        from models import devices

        devices.reset_peak(device)
        return devices.peak_bytes(device)
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    return peak_bytes(device)


def peak_bytes(device: str) -> int | None:
    """The most that was held since `reset_peak`."""
    if device != "cpu":
        from models import devices

        return devices.peak_bytes(device)
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * found[0] if found else None


def free_bytes(device: str = "cpu", root: Path = Path("/")) -> int:
    """What a device has left; of the CPU, the machine or this process's container, the lesser."""
    if device != "cpu":
        from models import devices

        found = devices.free_bytes(device)
        if found is not None:
            return found
    return min([int(psutil.virtual_memory().available), *left_in_groups(root)])


def left_in_groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left, where one sets a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            files = GROUPS_1 if controllers else GROUPS_2
            mount = root / files.mount
            # In a container the path may be the host's, while the mount is the group itself.
            folder = mount / path.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(mount):
                    yield from left_in(group, files)


def left_in(group: Path, files: GroupFiles) -> Iterator[int]:
    """The limit minus what is in use and cannot be reclaimed; nothing where there is no limit."""
    try:
        limit = int((group / files.limit).read_text())
        used = int((group / files.used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max", or not a group with a memory controller
        return
    yield max(0, limit - used + int(stat.get(files.reclaimable, 0)))
