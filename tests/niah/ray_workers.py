"""Workers with fake models, for tests with Ray: a worker's process imports them by name."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from models.protocols import Model
from niah.execution.executors.ray_worker import BATCH_SECONDS, Message, Outbox, Worker
from niah.execution.jobs import Finished
from niah.sweep.config import Arm
from tests.niah.fakes import RecallModel

FAILS_AFTER = 700  # tokens: of arm `sparse`, which answers short questions and fails at long ones
ASKED = Path("asked")  # in the driver's working folder: how many questions `KilledOnce` was asked


def fake_model(arm: Arm) -> RecallModel:
    return RecallModel(
        name=arm.model,
        memory=1 << 30 if arm.role == "baseline" else 512,
        fails_after=1 << 30 if arm.role == "baseline" else FAILS_AFTER,
        fingerprint=arm.name.encode().hex().ljust(16, "0")[:16],
    )


class FakeWorker(Worker):
    def load_model(self) -> Model:
        return fake_model(self.arm)


class KilledOnce(FakeWorker):
    """Kills itself, as the kernel would, after two rows of the second repeat; the next one not."""

    def rows(self, task: Message, outbox: Outbox) -> Iterator[Finished]:
        (job,) = task["jobs"]
        wanted = (self.arm.role, job["repeat"]) == ("baseline", 1)
        dies = wanted and not ASKED.exists()
        if wanted:
            with ASKED.open("a", encoding="utf-8") as file:
                print(len(job["pairs"]), file=file)
        for number, finished in enumerate(super().rows(task, outbox)):
            if dies and number == 2:
                time.sleep(3 * BATCH_SECONDS)  # the rows before are on their way
                os.kill(os.getpid(), signal.SIGKILL)
            yield finished


class Poisoned(FakeWorker):
    """Dies whenever it is asked the first stream of the second repeat."""

    def rows(self, task: Message, outbox: Outbox) -> Iterator[Finished]:
        if (task["jobs"][0]["repeat"], task["jobs"][0]["index"]) == (1, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().rows(task, outbox)
