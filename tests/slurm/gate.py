"""Tasks that stop in the midst of a shard until the test lets them go on."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sare_core.engine import faults
from sare_core.submission import Task


@dataclass
class GatedTask(Task):
    """A task that stands still at its first written sample, `<task>-<restarts>` in the gate's folder, till `open`."""

    gate: str

    def __call__(self) -> None:
        faults.hook = self._hold
        super().__call__()

    def _hold(self, point: str) -> None:
        if point == "sample-written":
            task = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
            (Path(self.gate) / f"{task}-{os.environ.get('SLURM_RESTART_COUNT', '0')}").touch()
            while not (Path(self.gate) / "open").exists():
                time.sleep(0.05)


class Gate:
    """The test's side of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def task(self, stage: str, arguments: dict[str, Any]) -> GatedTask:
        return GatedTask(stage, arguments, str(self.folder))

    def reached(self, *names: str) -> bool:
        return all((self.folder / name).exists() for name in names)

    def open(self) -> None:
        (self.folder / "open").touch()
