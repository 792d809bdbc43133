"""Stops a run at Ctrl-C.

An interrupt is an exception. One that is raised inside a callback of a library (of a compiler, for
example) is swallowed there, and the run would go on. So the interrupt is remembered and raised
again at the next chunk.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While entered, Ctrl-C raises KeyboardInterrupt at once, and again at every `check`."""

    asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises: KeyboardInterrupt if Ctrl-C was pressed."""
        if self.asked:
            raise KeyboardInterrupt

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt
