"""Owns how much memory this process holds, and how much more it may take.

Knows nothing of models or plans. A container's limit is read from its control groups, of either
version; systems without them have none.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

SAMPLE_SECONDS = 0.002


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


def resident_bytes() -> int:
    """Memory of this process that is in use at this moment."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return freed memory to the system, where the C library can: glibc keeps it for later, and
    what is then allocated would not show in `resident_bytes`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


class Peak:
    """By how many bytes the process grew while the block ran, at the most; sampled."""

    growth = 0

    def __enter__(self) -> Peak:
        give_back()
        self._start = resident_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.growth = max(self.growth, resident_bytes() - self._start)


def free_bytes(root: Path = Path("/")) -> int:
    """What the machine has left, or this process's container, whichever is less."""
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
