"""Shared by all tests: models with random weights, built once a session, and settings that point at them."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: two multi-threaded torch processes slow each other many times over, and some tests start several.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from sare_core.config import Settings, load_settings

STANDIN = str(Path(__file__).with_name("standins") / "standin.yaml")


# A file is one process's work (--dist loadfile): the longest first, or one would be left alone with it at the end.
LONGEST = [
    *(
        "end_to_end/test_regression.py",
        "miniature/test_world.py",
        "plan/test_flops.py",
        "reconstruction/test_img2img.py",
    ),
    *("miniature/test_generators.py", "plan/test_command.py", "study/test_study.py", "report/test_report.py"),
    *("slurm/test_submit.py", "objectstore/test_pipeline.py", "faults/test_kills.py", "processes/test_shards.py"),
    *("processes/test_training.py", "faults/test_disks.py", "objectstore/test_store.py"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: place.get(item.path.relative_to(here).as_posix(), len(place)))


@pytest.fixture(scope="session")
def standin_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioner, diffusion, image-encoder and semantic-encoder. Tests read them; one that changes a file copies it."""
    return built_once(tmp_path_factory, "standins", build_standins)


def build_standins(folder: Path) -> None:
    from tests.standins import build_models

    build_models(folder)


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that the first of all test processes builds and the others read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the whole run
    folder, whole = base / name, base / f"{name}.whole"
    with FileLock(base / f"{name}.lock"):
        if not whole.exists():
            build(folder)
            whole.touch()
    return folder


def standin_overrides(models: Path) -> list[str]:
    """`--set` arguments that point the stand-in settings at models in some folder."""
    return [
        f"caption.model={models}/captioner",
        f"caption.text_tokenizer={models}/diffusion/tokenizer",
        f"reconstruct.model={models}/diffusion",
        f"detector.image_encoder={models}/image-encoder",
        f"detector.semantic_encoder={models}/semantic-encoder",
    ]


@pytest.fixture
def standin_settings(standin_models: Path) -> Callable[..., Settings]:
    """`standin_settings("reconstruct.strength=0.7")`: standin.yaml on the session's models, with changes."""

    def settings(*overrides: str) -> Settings:
        return load_settings(STANDIN, [*standin_overrides(standin_models), *overrides])

    return settings
