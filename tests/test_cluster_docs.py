"""Every training that the documentation starts is accepted by the preset that it names."""

import re
import shlex
from math import prod
from pathlib import Path

import pytest

from sare_core.config import load_settings
from sare_core.training.steps import micro_batch

REPOSITORY = Path(__file__).parents[1]
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "stages" / "train.py"]


def trainings(text: str) -> list[tuple[str, int]]:
    """Preset and number of processes of each command that trains on several GPUs."""
    found = []
    for line in text.splitlines():
        if re.match(r"\s*make train\b", line):
            values = dict(word.split("=", 1) for word in shlex.split(line, comments=True) if "=" in word)
            found.append((values["PRESET"], prod(int(values.get(name, 1)) for name in ("GPUS", "NODES"))))
        elif (processes := re.search(r"--num_processes (\d+)", line)) and "stages.train" in line:
            preset = re.search(r"--preset (\S+)", line)
            assert preset is not None
            found.append((preset[1], int(processes[1])))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_documented_training_is_accepted(page: Path) -> None:
    for preset, processes in trainings(page.read_text()):
        micro_batch(load_settings(preset).train, processes)


def test_the_page_shows_a_training_on_several_nodes() -> None:
    assert ("paper", 8) in trainings((REPOSITORY / "docs" / "cluster.md").read_text())
    assert trainings((REPOSITORY / "stages" / "train.py").read_text())
