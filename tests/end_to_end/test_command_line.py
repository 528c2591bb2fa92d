"""The commands as a user types them: their exit codes and messages."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stages.app import COMMANDS, app, command_name
from tests.conftest import STANDIN, standin_overrides
from tests.forked import Command
from tests.pipeline import outputs
from tests.trees import genimage_tree

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "train.epochs=2", "train.batch_size=8"]
Sare = Callable[..., Command]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return genimage_tree(tmp_path_factory.mktemp("tree"), per_cell=10, subsets=["sdv1.4"])


@pytest.fixture
def sare(tmp_path: Path, standin_models: Path, tree: Path) -> Sare:
    """`sare("caption", "--shard", "1").wait()` with the stand-ins on an index of the tree; `work=` names its folder."""
    environment = {**os.environ, "SARE_MANIFESTS": str(tmp_path / "manifests"), "OMP_NUM_THREADS": "1"}
    environment["SARE_SPOOL"] = str(tmp_path / "spool")  # of its own: tests that kill leave files in the shared one
    environment["COLUMNS"] = "1000"  # the path of a preset must not push figures out of a table
    settings = ["--preset", STANDIN]
    settings += [part for override in [*standin_overrides(standin_models), *SMALL] for part in ("--set", override)]

    def start(stage: str, *arguments: str, work: str = "work") -> Command:
        named = ["--dataset", "tree", *settings] if stage in ("caption", "reconstruct", "train", "evaluate") else []
        return Command(
            [stage, *named, *arguments], {**environment, "SARE_WORK": str(tmp_path / work)}, tmp_path / "said"
        )

    layout = ("--layout", "genimage", "--root", str(tree), "--name", "tree", "--shard-size", "8")
    assert start("index", *layout, "--workers", "1").wait().returncode == 0
    return start


def test_two_runners_race_and_one_result_stands(sare: Sare, tmp_path: Path) -> None:
    assert sare("caption", work="alone").wait().returncode == 0
    racers = [sare("caption", work="race") for _ in range(2)]
    assert [racer.wait().returncode for racer in racers] == [0, 0]
    assert outputs(tmp_path / "race") == outputs(tmp_path / "alone")


def test_exit_codes_and_messages_tell(sare: Sare, tmp_path: Path) -> None:
    waits = sare("reconstruct", "--shard", "0").wait()
    assert waits.returncode == 1
    assert "waits for captions" in waits.stdout
    assert "Run the stage before with the same settings, then this command again." in waits.stdout
    wrong = sare("caption", "--set", "caption.bach_size=3").wait()
    assert wrong.returncode == 2
    assert "Did you mean 'caption.batch_size'?" in wrong.stderr
    missing = sare("caption", "--shard", "99").wait()
    assert missing.returncode == 2
    assert "has no shard 99" in missing.stderr
    assert "0-" in missing.stderr
    early = sare("evaluate").wait()
    assert early.returncode == 1
    assert "Run `sare caption`, then `sare reconstruct`" in early.stderr
    unknown = sare("caption", "--set", "caption.model=models/none/there").wait()
    assert unknown.returncode == 2
    assert "models/none/there: no such model folder" in unknown.stderr
    assert not outputs(tmp_path / "work")


def test_a_signal_ends_the_command_with_its_own_code(sare: Sare, tmp_path: Path) -> None:
    running = sare("caption")
    while not list((tmp_path / "work").rglob("records/00000.json")):
        assert running.poll() is None, "it ended before the signal"
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert running.wait().returncode in (143, 0)
    assert sare("caption").wait().returncode == 0
    assert "all as recorded" in sare("verify").wait().stdout


def test_help_is_grouped_and_each_command_has_an_example() -> None:
    runner = CliRunner()
    everything = runner.invoke(app).output
    for panel, commands in COMMANDS.items():
        assert everything.index(f"─ {panel} ─") < everything.index(f" {command_name(commands[0][0])} ")
    for command in [command for commands in COMMANDS.values() for command, _ in commands]:
        name = command_name(command)
        assert f"Example: sare {name}" in runner.invoke(app, [name, "--help"]).output


def test_examples_in_the_help_use_options_that_there_are() -> None:
    for example in (example for commands in COMMANDS.values() for _, example in commands):
        _, name, *arguments = example.split()
        known = {option for option in get_command(app).commands[name].params for option in option.opts}  # type: ignore[attr-defined]
        assert {argument for argument in arguments if argument.startswith("--")} <= known, example


def test_version_tells_what_a_report_of_a_fault_needs_and_imports_no_torch() -> None:
    script = "import sys; from stages.app import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, check=True)
    python = ".".join(map(str, sys.version_info[:3]))
    assert said.stdout == f"sare {version('sare')} (Python {python}, torch {version('torch')})\n"


def test_a_name_of_a_run_stands_beside_its_folder(sare: Sare, tmp_path: Path) -> None:
    assert sare("caption", "--shard", "0", "--run", "first").wait().stdout.strip().endswith(" (first)")
    silent = sare("caption", "--run", "silent", "--set", "caption.captioner=none", "--set", "caption.model=null").wait()
    assert silent.returncode == 0
    status = sare("status").wait().stdout
    assert sorted(line.split()[2] for line in status.splitlines() if line.startswith("captions ")) == [
        "first",
        "silent",
    ]
    assert "older than" not in status, "a control is not a change of mind"
    refused = sare("caption", "--run", "two words").wait()
    assert (refused.returncode, "--run 'two words'" in refused.stderr) == (2, True)


def test_status_and_gc_need_no_preset(sare: Sare) -> None:
    early = sare("status").wait()
    assert early.returncode == 2
    assert "no such folder" in early.stderr
    assert sare("caption", "--shard", "0-1").wait().returncode == 0
    status = sare("status").wait().stdout
    (line,) = [line for line in status.splitlines() if line.startswith("captions") and "standin" in line]
    done, still_open = line.partition("standin")[2].split()[:2]
    assert done == "2"
    assert int(still_open) >= 3
    assert "0 files" in sare("gc").wait().stdout
