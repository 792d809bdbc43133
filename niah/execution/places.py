"""Where the models of a sweep are: in this process, or with the workers of a Ray cluster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from models.protocols import Model
from niah.execution.environment import environment
from niah.execution.executors.local import LocalExecutor
from niah.execution.jobs import Executor, Progress
from niah.execution.loading import Bench, load_arm
from niah.sweep.config import Arm, Sweep
from niah.sweep.trials import Plan


class Place(Protocol):
    """Loads models and carries out jobs."""

    def load(self, arm: Arm, sweep: Sweep) -> Model:
        """The arm's model, or what is known of it."""

    def environment(self) -> dict[str, Any]:
        """What the models are measured on; after `load`."""

    def executor(self, plan: Plan, bench: Bench, folder: Path, progress: Progress) -> Executor:
        """Carries out the jobs of `plan`; `folder` is the run's."""


class Here:
    """This process."""

    def load(self, arm: Arm, sweep: Sweep) -> Model:
        return load_arm(arm, sweep)

    def environment(self) -> dict[str, Any]:
        return environment()

    def executor(self, plan: Plan, bench: Bench, folder: Path, progress: Progress) -> Executor:
        return LocalExecutor(plan, bench, folder, progress)


@contextmanager
def find_place(
    ray: str | None, sweep: Sweep, before: Sequence[Sweep] = (), gpus: float = 1
) -> Iterator[Place]:
    """This process, or where `ray` is given the workers of that cluster: see `executors.ray`.

    Raises: PlanError where the cluster cannot be reached.
    """
    if ray is None:
        yield Here()
        return
    from niah.execution.executors.ray import Crew, Order, connected

    with connected(ray), Crew(Order(sweep, tuple(before), gpus)) as crew:
        yield crew
