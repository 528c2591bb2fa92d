"""The commands as a user types them: `sare …`, and several processes by accelerate; their exit codes and messages."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import outputs
from tests.trees import genimage_tree

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "train.epochs=2", "train.batch_size=8"]
SMALL += ["train.micro_batch_size=4"]  # two processes share a step by whole micro-batches
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return genimage_tree(tmp_path_factory.mktemp("tree"), per_cell=10, subsets=["sdv1.4"])


@pytest.fixture
def sare(tmp_path: Path, standin_models: Path, tree: Path) -> Command:
    """`sare("caption", "--shard", "1")` with the stand-ins on an index of the tree; `work=` names the work folder."""
    environment = {**os.environ, "SARE_MANIFESTS": str(tmp_path / "manifests"), "OMP_NUM_THREADS": "1"}
    environment["SARE_SPOOL"] = str(tmp_path / "spool")  # of its own: tests that kill leave files in the shared one
    environment["COLUMNS"] = "1000"  # the path of a preset must not push figures out of a table
    settings = ["--preset", STANDIN]
    settings += [part for override in [*standin_overrides(standin_models), *SMALL] for part in ("--set", override)]

    def run(
        stage: str, *arguments: str, work: str = "work", launch: tuple[str, ...] = (sys.executable,), wait: bool = True
    ) -> subprocess.CompletedProcess[str]:
        command = [*launch, "-m", "stages.app", stage, *arguments]
        if stage in ("caption", "reconstruct", "train", "evaluate"):
            command[len(launch) : len(launch) + 3] = ["-m", f"stages.{stage}", "--dataset", "tree", *settings]
        environment["SARE_WORK"] = str(tmp_path / work)
        if not wait:
            return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)  # type: ignore[return-value]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    layout = ("--layout", "genimage", "--root", str(tree), "--name", "tree", "--shard-size", "8")
    assert run("index", *layout, "--workers", "1").returncode == 0
    return run


TWO = (
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
)


@pytest.mark.timeout(600)
def test_two_processes_share_the_shards_and_give_the_bytes_of_one(sare: Command, tmp_path: Path) -> None:
    accelerate = (sys.executable, "-m", "accelerate.commands.launch", *TWO)
    for stage in ("caption", "reconstruct"):
        alone, together = sare(stage, work="one"), sare(stage, work="two", launch=accelerate)
        assert alone.returncode == 0, alone.stderr
        assert together.returncode == 0, together.stderr
        assert "rank 0: " in together.stdout
        assert "rank 1: " in together.stdout
        assert "rank 1: " + stage[:7] in together.stdout.replace("\n", " ")
        assert " 0 shards done" not in together.stdout, "each of the two has its share"
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    for work, launch in (("one", (sys.executable,)), ("two", accelerate)):
        trained = sare("train", work=work, launch=launch)
        assert trained.returncode == 0, trained.stderr
        assert "best epoch" in trained.stdout
    evaluated = sare("evaluate", work="two", launch=accelerate)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "SARE (this run)" in evaluated.stdout
    verified = sare("verify", work="two")
    assert verified.returncode == 0
    assert "all as recorded" in verified.stdout


def test_two_runners_race_and_one_result_stands(sare: Command, tmp_path: Path) -> None:
    assert sare("caption", work="alone").returncode == 0
    racers = [sare("caption", work="race", wait=False) for _ in range(2)]
    codes = [racer.wait() for racer in racers]  # type: ignore[attr-defined]
    assert set(codes) <= {0, 1}, "1: a shard was in work elsewhere"
    assert sare("caption", work="race").returncode == 0
    assert outputs(tmp_path / "race") == outputs(tmp_path / "alone")


def test_exit_codes_and_messages_tell(sare: Command, tmp_path: Path) -> None:
    waits = sare("reconstruct", "--shard", "0")
    assert waits.returncode == 1
    assert "waits for captions" in waits.stdout
    wrong = sare("caption", "--set", "caption.bach_size=3")
    assert wrong.returncode == 2
    assert "Did you mean 'caption.batch_size'?" in wrong.stderr
    missing = sare("caption", "--shard", "99")
    assert missing.returncode == 2
    assert "has no shard 99" in missing.stderr
    assert "0-" in missing.stderr
    early = sare("evaluate")
    assert early.returncode == 1
    assert "Run `sare reconstruct`" in early.stderr
    unknown = sare("caption", "--set", "caption.model=models/none/there")
    assert unknown.returncode == 2
    assert "models/none/there: no such model folder" in unknown.stderr
    assert not outputs(tmp_path / "work")


def test_a_signal_ends_the_command_with_its_own_code(sare: Command, tmp_path: Path) -> None:
    running = sare("caption", wait=False)
    while not list((tmp_path / "work").rglob("records/00000.json")):
        assert running.poll() is None, "it ended before the signal"  # type: ignore[attr-defined]
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    assert running.wait() in (143, 0)  # type: ignore[attr-defined]
    assert sare("caption").returncode == 0
    assert "all as recorded" in sare("verify").stdout


def test_status_and_gc_need_no_preset(sare: Command) -> None:
    early = sare("status")
    assert early.returncode == 2
    assert "no such folder" in early.stderr
    assert sare("caption", "--shard", "0-1").returncode == 0
    status = sare("status").stdout
    (line,) = [line for line in status.splitlines() if line.startswith("captions") and "standin.yaml" in line]
    done, still_open = line.partition("standin.yaml")[2].split()[:2]
    assert done == "2"
    assert int(still_open) >= 3
    assert "0 files" in sare("gc").stdout
