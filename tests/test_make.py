"""What make's variables turn into: the command of a target, as `make --dry-run` prints it."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WHERE = "--dataset mini --preset mini --work work --manifests manifests"


def made(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--dry-run", "--old-file=install", target, *variables]
    # As from a shell, also when make runs the tests.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_what_make_starts_keeps_its_bytecode() -> None:
    say = ["make", "--eval", 'say: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"', "say"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(say, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert "[]" in done.stdout


@pytest.mark.parametrize(
    ("target", "variables", "command"),
    [
        ("captions", "", "python -m stages.caption {}"),
        ("reconstruct", "SHARD=3", "python -m stages.reconstruct {} --shard 3"),
        ("reconstruct", "LAUNCH=slurm", "sare submit reconstruct {}"),
        ("reconstruct", "LAUNCH=slurm SHARD=3", "sare submit reconstruct {} --shard 3"),
        ("captions", "LAUNCH=slurm SHARD=0-9 GPUS=8", "sare submit caption {} --shard 0-9 --gpus 8"),
        ("captions", "RUN=first", "python -m stages.caption {} --run first"),
        ("train", "RUN=first LAUNCH=slurm", "sare submit train {} --run first"),
        ("report", "RUN=first", "python -m stages.report {} --run first"),
        ("captions", "LAUNCH=slurm DRY_RUN=1", "sare submit caption {} --dry-run"),
        ("evaluate", "TRAINED_ON=genimage", "python -m stages.evaluate {} --trained-on genimage"),
        (
            "evaluate",
            "LAUNCH=slurm SHARD=7 TRAINED_ON=genimage",
            "sare submit evaluate {} --shard 7 --trained-on genimage",
        ),
        ("train", "LAUNCH=slurm", "sare submit train {}"),
        ("detect", "IMAGE=a.jpg", "sare detect 'a.jpg' --detector demo --work work"),
        ("detect", "IMAGE=a.jpg DETECTOR=/d", "sare detect 'a.jpg' --detector /d --work work"),
        ("detect", "IMAGE=it's.jpg", r"sare detect 'it'\''s.jpg' --detector demo --work work"),
        ("detect", "IMAGE=$HOME$$(x).jpg", "sare detect '$HOME$$(x).jpg' --detector demo --work work"),
        ("detect", "IMAGE=a.jpg SET=note=x", "sare detect 'a.jpg' --detector demo --work work --set note=x"),
        ("serve", "DETECTOR=/d", "sare serve --detector /d --work work"),
        ("report", "TRAINED_ON=genimage", "python -m stages.report {} --trained-on genimage"),
    ],
)
def test_variables_reach_the_command(target: str, variables: str, command: str) -> None:
    done = made(target, *variables.split())
    assert done.returncode == 0, done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [f".venv/bin/{command.format(WHERE)}"]


def test_an_unknown_launcher_starts_nothing_here() -> None:
    done = made("reconstruct", "LAUNCH=Slurm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "only slurm is known" in done.stderr


def test_a_dry_run_never_starts_the_stage_here() -> None:
    done = made("reconstruct", "DRY_RUN=1")
    assert done.returncode == 2
    assert "DRY_RUN goes with LAUNCH=slurm" in done.stderr
    assert done.stdout == ""


def test_one_list_says_which_detectors_are_compared() -> None:
    done = made("compare", "DETECTORS=image other", "SEEDS=0 1", "SET=train.epochs=1")
    assert done.returncode == 0, done.stderr
    loop, last = " ".join(done.stdout.split()).partition(" .venv/bin/sare compare ")[::2]
    assert "for detector in image other; do for stage in caption reconstruct;" in loop
    assert "for seed in 0 1; do for stage in train evaluate;" in loop
    assert loop.count(" --set train.epochs=1 --set detector.detector=$detector") == 2
    assert last.startswith("image other --dataset mini")
