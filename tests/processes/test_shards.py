"""Shards over processes and nodes: each is done once, with the bytes of one process; and what a death costs."""

import io
import re
import shutil
import signal
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from sare_core.config import load_settings
from sare_core.engine.audit import folders, integrity_errors
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline, outputs
from tests.processes.launching import Launch, ended, free_port
from tests.trees import genimage_tree

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "train_subsets=null"]
SIZE = 6  # images a shard


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Pipeline:
    """Captions of all shards, and nothing more."""
    folder = tmp_path_factory.mktemp("world")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(genimage_tree(folder / "tree", per_cell=16, subsets=["sdv1.4"]), shard_size=SIZE)
    assert pipeline.captions().complete
    assert len(pipeline.shards()) >= 9
    return pipeline


@pytest.fixture(scope="module")
def alone(captioned: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    work = tmp_path_factory.mktemp("alone") / "work"
    shutil.copytree(captioned.work, work)
    assert Pipeline(captioned.settings, captioned.manifests, str(work)).reconstructions().complete
    return outputs(work)


@pytest.fixture
def launch(captioned: Pipeline, standin_models: Path, tmp_path: Path) -> Launch:
    shutil.copytree(captioned.work, tmp_path / "work")
    return Launch([*standin_overrides(standin_models), *SMALL], captioned.manifests, tmp_path / "work")


def reconstructions(launch: Launch) -> Folder:
    (folder,) = [folder for folder in folders(str(launch.work)) if folder.stage == "reconstructions"]
    return folder


def check_whole(launch: Launch, alone: dict[str, bytes]) -> None:
    """The bytes of one process, and what the records promise."""
    assert outputs(launch.work) == alone
    assert list(integrity_errors(reconstructions(launch), read_index(launch.manifests, "tree"))) == []


def check_left(launch: Launch) -> set[int]:
    """The shards that are done, each of them whole; nothing half done lies in any place that counts."""
    records = reconstructions(launch).records()
    assert {record.status for record in records.values()} <= {"done"}
    assert not [path for path in launch.work.rglob("*.tmp") if path.parent.name != "claims"]
    named = {record.output.name for record in records.values() if record.output}
    assert {path.name for path in launch.work.rglob("*.tar")} == named
    return set(records)


def test_two_nodes_share_the_shards(launch: Launch, alone: dict[str, bytes], captioned: Pipeline) -> None:
    """The same command on each node, with its number: no shard is done by both; and a thread pool of its own."""
    main = f"127.0.0.1:{free_port()}"
    nodes = [launch.start("reconstruct", "NODES=2", f"NODE={node}", f"MAIN={main}") for node in (0, 1)]
    threads = [one_thread(node.pid) for node in nodes]
    results = [ended(node) for node in nodes]
    assert [code for code, _ in results] == [0, 0], results
    assert threads == ["1", "1"]
    shards = len(captioned.shards())
    mine, others = zip(*(counts(said, rank) for rank, (_, said) in enumerate(results)), strict=True)
    assert sum(mine) == shards, "none is done twice"
    assert sorted(others) == sorted(shards - count for count in mine)
    check_whole(launch, alone)


def counts(said: str, rank: int) -> tuple[int, int]:
    """Shards that a rank has done, and those that it found done by others, before or meanwhile."""
    found = re.search(
        rf"rank {rank}: reconstructions: (\d+) shards done(?: in \d+ s)?(?:, (\d+) by other processes)?, "
        r"(\d+) were done before",
        said,
    )
    assert found, said
    return int(found[1]), int(found[2] or 0) + int(found[3])


def one_thread(launcher: int) -> str:
    """OMP_NUM_THREADS of a launcher's first process."""
    while True:
        for worker in psutil.Process(launcher).children():
            with suppress(psutil.Error):  # a child that has just ended
                return worker.environ()["OMP_NUM_THREADS"]
        time.sleep(0.05)


def test_a_rank_needs_no_other(launch: Launch, alone: dict[str, bytes], captioned: Pipeline) -> None:
    """No collective, no share of its own: rank 1 of 2 does all shards though rank 0 is never started."""
    (rank,) = launch.forked("reconstruct", RANK="1", WORLD_SIZE="2")
    assert rank.returncode == 0, rank.stderr
    assert counts(rank.stdout, 1) == (len(captioned.shards()), 0)
    check_whole(launch, alone)


def test_a_killed_rank_costs_the_shards_in_flight(launch: Launch, alone: dict[str, bytes]) -> None:
    """Rank 1 dies in its second shard; accelerate stops rank 0, the exit code tells, the same command goes on."""
    dying = (1, "sample-written", SIZE + 2, int(signal.SIGKILL), "self")
    code, said = launch.run("reconstruct", "GPUS=2", changed=dying)
    assert code == 1, said
    done = check_left(launch)
    assert done, "its first one, at the least"
    ranks = launch.forked("reconstruct", 2)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    again = sum(counts(rank.stdout, number)[0] for number, rank in enumerate(ranks))
    assert again == len(tars(alone)) - len(done), "what was done is not done again"
    check_whole(launch, alone)


def test_shards_that_are_computed_together_survive_a_kill(launch: Launch, alone: dict[str, bytes]) -> None:
    launch.settings.append("reconstruct.shards_together=3")
    (killed,) = launch.forked("reconstruct", changed=(0, "sample-written", 3 * SIZE + 2, int(signal.SIGKILL), "self"))
    assert killed.returncode == -signal.SIGKILL, killed
    done = check_left(launch)
    (again,) = launch.forked("reconstruct")
    assert again.returncode == 0, again
    assert f"{len(tars(alone)) - len(done)} shards done" in again.stdout, "what was done is not done again"
    assert {tuple(record.together) for record in reconstructions(launch).records().values()} > {(0, 1, 2)}
    assert list(integrity_errors(reconstructions(launch), read_index(launch.manifests, "tree"))) == []
    pairs = [(pixels(data), pixels(tars(alone)[name])) for name, data in tars(outputs(launch.work)).items()]
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) <= 1, "up to rounding, of other batches"


def pixels(tar: bytes) -> dict[str, np.ndarray]:
    """The PNGs of a shard, by name."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        files = {member.name: members.extractfile(member) for member in members if member.name.endswith(".png")}
        return {name: np.asarray(Image.open(file), int) for name, file in files.items() if file}


def tars(alone: dict[str, bytes]) -> dict[str, bytes]:
    """By number of the shard; the rest of a name is a digest."""
    return {Path(name).name.partition("-")[0]: data for name, data in alone.items() if name.endswith(".tar")}


def test_a_signal_to_the_launcher_stops_all_ranks_cleanly(launch: Launch, alone: dict[str, bytes]) -> None:
    stopping = (1, "sample-written", SIZE + 2, int(signal.SIGTERM), "launcher")
    code, said = launch.run("reconstruct", "GPUS=2", changed=stopping)
    assert code != 0, said
    assert "stopped by signal 15; what was finished is kept" in said
    assert check_left(launch)
    assert not list(launch.work.rglob("claims/*.json")), "claims are given up"
    assert not list((launch.work.parent / "spool").iterdir()), "the shard in flight is dropped"
    ranks = launch.forked("reconstruct", 2)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    check_whole(launch, alone)
