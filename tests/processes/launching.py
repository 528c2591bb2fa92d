"""Starts stages as `make` does, on several processes and nodes, all of them on this machine; or their ranks alone."""

import os
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import STANDIN
from tests.forked import Command, Done
from tests.processes.changed import change

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass
class Launch:
    """One dataset, indexed, and a work folder. settings: `--set` arguments on the stand-ins' preset."""

    settings: list[str]
    manifests: str
    work: Path

    def start(
        self, target: str, *variables: str, changed: tuple[object, ...] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        """`make target GPUS=2 …`, as the Makefile spells the command; `changed`: see there."""
        (line,) = [text for text in printed(target, *variables).splitlines() if "-m stages." in text]
        launcher, _, rest = line.partition(" -m stages.")
        stage = rest.split()[0]
        module = ["tests.processes.changed", *map(str, changed), f"stages.{stage}"] if changed else [f"stages.{stage}"]
        command = [*shlex.split(launcher), "-m", *module, "--dataset", "tree", "--preset", STANDIN]
        command += [part for setting in self.settings for part in ("--set", setting)]
        command += ["--work", str(self.work), "--manifests", self.manifests]
        environment = {**os.environ, "SARE_SPOOL": str(self.work.parent / "spool"), **environment}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def forked(self, stage: str, ranks: int = 1, changed: Any = (), **environment: str) -> list[Done]:
        """The ranks of a stage as a launcher starts them, their imports done already, to their end."""
        arguments = [stage, "--dataset", "tree", "--preset", STANDIN]
        arguments += [part for setting in self.settings for part in ("--set", setting)]
        arguments += ["--work", str(self.work), "--manifests", self.manifests]
        shared = {**os.environ, "SARE_SPOOL": str(self.work.parent / "spool"), **environment}
        if ranks > 1:
            shared |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        commands = []
        for rank in range(ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            before = partial(change, *changed) if changed else None
            commands.append(Command(arguments, shared | own, self.work.parent / "said", before))
        return [command.wait() for command in commands]

    def run(self, target: str, *variables: str, changed: tuple[object, ...] = ()) -> tuple[int, str]:
        """The same to its end: exit code and what it said."""
        return ended(self.start(target, *variables, changed=changed))


def ended(process: "subprocess.Popen[str]", seconds: float = 1200) -> tuple[int, str]:
    """Exit code and output of a process, once it has come to its end."""
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def printed(target: str, *variables: str) -> str:
    """What `make -n` prints, with the programs of this Python in place of .venv's."""
    command = ["make", "-n", f"BIN={BIN}", "-o", f"{BIN}/.installed", target, *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
