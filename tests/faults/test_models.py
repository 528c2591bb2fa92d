"""Model folders and checkpoints that are cut, lack a file or hold a pickle: file and cure are named, exit code 2."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sare_core.captioning import load_captioner
from sare_core.config import Settings, load_settings
from sare_core.detectors import build_detector
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.errors import ConfigError
from sare_core.reconstruction.img2img import Img2Img
from stages.options import exit_codes
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline, outputs
from tests.trees import genimage_tree

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "train.epochs=1", "train.batch_size=8"]
NOT_NEEDED = {"generation_config.json", "tokenizer_config.json", "model_index.json"}


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(path: Path) -> None:
    torch.save(Trap(path.parent / "sprung"), path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut": lambda path: path.write_bytes(path.read_bytes().rstrip()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "pickle": pickled,
}


def load(name: str, models: Path) -> None:
    """Load what lies in the folder `name` of the models, as its stage does."""
    settings = load_settings(STANDIN, standin_overrides(models))
    if name == "captioner":
        load_captioner(settings.caption, str(models / name), "cpu")
    elif name == "diffusion":
        Img2Img(settings.reconstruct, str(models / name), "cpu")
    else:
        build_detector(
            settings.detector, {f"{kind}_encoder": str(models / f"{kind}-encoder") for kind in ("image", "semantic")}
        )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["captioner", "diffusion", "image-encoder", "semantic-encoder"])
def test_each_file_of_a_model_that_is_damaged_is_named(
    name: str, damage: str, standin_models: Path, tmp_path: Path
) -> None:
    models = shutil.copytree(standin_models, tmp_path / "models")
    files = [path for path in sorted((models / name).rglob("*")) if path.is_file()]
    assert len(files) > 1
    for path in files:
        if damage == "gone" and path.name in NOT_NEEDED:
            continue
        whole = path.read_bytes()
        DAMAGES[damage](path)
        with pytest.raises(ConfigError) as error:
            load(name, models)
        told = str(error.value)
        if damage == "gone":
            assert path.name in told or str(path.parent) in told, told
        else:
            assert told.startswith(f"{path}: cut or damaged"), told
        assert "Fetch the" in told or "Give a whole" in told or "holds config.json and" in told, told
        assert not (path.parent / "sprung").exists(), "a pickle is never opened"
        path.write_bytes(whole)
    load(name, models)


@pytest.mark.parametrize("part", ["captioner", "diffusion/text_encoder", "diffusion/unet", "diffusion/vae"])
def test_weights_that_a_file_lacks_are_not_made_up(part: str, standin_models: Path, tmp_path: Path) -> None:
    models = shutil.copytree(standin_models, tmp_path / "models")
    (path,) = (models / part).glob("*.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("weight"))
    save_file({key: value for key, value in tensors.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(ConfigError, match=part) as error:
        load(part.partition("/")[0], models)
    assert name.rpartition(".")[2] in str(error.value)


def test_a_shard_of_weights_that_is_gone(standin_models: Path, tmp_path: Path) -> None:
    models = shutil.copytree(standin_models, tmp_path / "models")
    from transformers import CLIPTextModel

    folder = models / "diffusion" / "text_encoder"
    CLIPTextModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    (folder / "model.safetensors").unlink(missing_ok=True)
    load("diffusion", models)
    shards[-1].unlink()
    with pytest.raises(ConfigError, match=rf"holds no {shards[-1].name}, which model.safetensors.index.json names"):
        load("diffusion", models)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Pipeline:
    """All stages done, with models of its own."""
    folder = tmp_path_factory.mktemp("world")
    models = shutil.copytree(standin_models, folder / "models")
    settings = load_settings(STANDIN, [*standin_overrides(models), *SMALL, "train.micro_batch_size=8"])
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(genimage_tree(folder / "tree", per_cell=8, subsets=["sdv1.4"]))
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    pipeline.detector()
    return pipeline


def models_of(settings: Settings) -> Path:
    return Path(str(settings.detector.image_encoder)).parent


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("captions", "captioner/model.safetensors"),
        ("reconstructions", "diffusion/text_encoder/model.safetensors"),
        ("detector", "semantic-encoder/model.safetensors"),
        ("predictions", "image-encoder/model.safetensors"),
    ],
)
def test_a_stage_ends_with_2_and_leaves_nothing(
    stage: str, file: str, world: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is cut after its digest was taken, so that the folder is the one of the whole model."""
    path = models_of(world.settings) / file
    before = {"captions": (), "reconstructions": ("captions",)}.get(stage, ("captions", "reconstructions"))
    work = tmp_path / "work"
    kept = (*before, "detectors") if stage == "predictions" else before
    for name in kept:
        shutil.copytree(Path(world.work) / "tree" / name, work / "tree" / name)
    pipeline, found = Pipeline(world.settings, world.manifests, str(work)), outputs(work)
    detector = next(work.glob("tree/detectors/*"), None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(SystemExit) as ended, exit_codes():
            if stage == "predictions":
                from sare_core.engine.folders import Folder

                assert detector is not None
                pipeline.predictions(Folder.open(str(work), "tree", "detectors", detector.name))
            else:
                getattr(pipeline, stage)()
    finally:
        path.write_bytes(whole)
    assert ended.value.code == 2
    assert f"{path}: cut or damaged" in capsys.readouterr().err
    assert outputs(work) == found
    assert not list(work.rglob("claims/*.json"))


def last_of(pipeline: Pipeline) -> tuple[Any, Any]:
    from sare_core.engine.manifest import read_index

    store = pipeline.graph.detector_of(read_index(pipeline.manifests, "tree")).store
    return store, read_checkpoint(store, "last")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["last.json", "tensors"])
def test_a_training_does_not_go_on_from_a_damaged_checkpoint(
    which: str, damage: str, world: Pipeline, tmp_path: Path
) -> None:
    shutil.copytree(world.work, tmp_path / "work")
    pipeline = Pipeline(world.settings, world.manifests, str(tmp_path / "work"))
    store, last = last_of(pipeline)
    path = Path(store.path("last.json" if which == "last.json" else last.file))
    DAMAGES[damage](path)
    if (which, damage) == ("last.json", "gone"):
        pipeline.detector()  # it begins anew, and ends where it ended before
        assert last_of(pipeline)[1].sha256 == last.sha256
        return
    with pytest.raises(ConfigError) as error:
        pipeline.detector()
    assert str(path) in str(error.value)
    assert "train again" in str(error.value)
    assert not (path.parent / "sprung").exists()
    (path.parent / "last.json").unlink(missing_ok=True)  # the cure
    pipeline.detector()
    assert last_of(pipeline)[1].sha256 == last.sha256
