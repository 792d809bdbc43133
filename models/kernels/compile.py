"""How kernels are compiled: without the interpreter's lock, and cached on disk.

Also what the processor's vectors hold. Importing this module needs numba.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

log = logging.getLogger(__name__)
config: Any = numba.config  # its names are set at run time


def cache_places() -> Iterator[Path]:
    """The folders in which numba would cache the kernels, in its order."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        yield Path(chosen) if chosen else Path.home() / ".cache"
    except RuntimeError:  # no home folder, and numba would make one called "~"
        return


def choose_cache(places: Sequence[Path]) -> None:
    """Have numba cache in a temporary folder, with a warning, if it can write to no place."""
    if any(map(can_write, places)):
        return
    folder = tempfile.mkdtemp(prefix="niah-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning(
        "no folder to keep compiled kernels in: they go to %s and are compiled anew in every "
        "process; set NUMBA_CACHE_DIR to a folder that can be written to",
        folder,
    )
    config.CACHE_DIR = folder


def can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def forget_older(folder: Path, sources: Iterable[Path]) -> None:
    """Remove what numba keeps in `folder` that is older than one of the sources.

    It looks at the file of a kernel alone, not at the files whose functions this one calls.
    """
    newest = max(source.stat().st_mtime for source in sources)
    for index in folder.glob("*.nbi"):
        with suppress(OSError):
            if index.stat().st_mtime < newest:
                index.unlink()


HERE = Path(__file__).parent
choose_cache(list(cache_places()))
forget_older(HERE / "__pycache__", [*HERE.glob("*.py"), HERE.parent / "number_formats.py"])


def kernel(function: Kernel) -> Kernel:
    """Strict arithmetic: operations in the order written, whatever the shapes."""
    return cast(Kernel, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def reordering_kernel(function: Kernel) -> Kernel:
    """Sums may be reordered and products fused, as a vectorised reduction needs."""
    flags = {"reassoc", "contract", "nsz"}
    return cast(
        Kernel, numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=flags)(function)
    )


def features(chosen: str | None) -> set[str]:
    """What the processor can do that kernels are compiled for: its own features, or `chosen` ones,
    written as in NUMBA_CPU_FEATURES."""
    text = llvm.get_host_cpu_features().flatten() if chosen is None else chosen
    return {name[1:] for name in text.split(",") if name.startswith("+")}


_FEATURES = features(config.CPU_FEATURES)
_X86 = llvm.get_process_triple().startswith(("x86_64", "i386", "i686"))

VECTOR_UNIT = "fma" in _FEATURES if _X86 else True
LANES = 16 if "avx512f" in _FEATURES else 8
"""Floats in a vector of the kernels: a register with AVX-512, one of AVX2, or two of NEON."""
VECTORS = 4 if LANES == 16 else 2
"""Vectors of keys beside each other in a tile: with 4 heads, as many sums as registers allow."""
