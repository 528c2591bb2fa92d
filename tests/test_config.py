from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sare_core.config import Settings, known_keys, load_settings, preset_names
from sare_core.config.captioning import CaptionSettings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.evaluation import EvaluateSettings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.config.training import AugmentSettings, TrainSettings
from sare_core.errors import ConfigError

SECTIONS = [
    CaptionSettings,
    ReconstructSettings,
    DetectorSettings,
    AugmentSettings,
    TrainSettings,
    EvaluateSettings,
    Settings,
]
# What the paper prints: 3.2 and 4.1 of "Semantic-Aware Reconstruction Error".
PRINTED = {
    "train_subsets": ("sdv1.4",),
    "caption.captioner": "blip",
    "caption.num_beams": 1,
    "reconstruct.model": "CompVis/stable-diffusion-v1-4",
    "reconstruct.longer_side": 512,
    "reconstruct.steps": 50,
    "reconstruct.strength": 0.5,
    "reconstruct.guidance_scale": 7.5,
    "reconstruct.eta": 0.0,
    "detector.image_encoder": "openai/clip-vit-large-patch14",
    "detector.semantic_encoder": "timm/resnet50.tv_in1k",
    "detector.input_size": 224,
    "train.epochs": 17,
    "train.batch_size": 512,
    "train.learning_rate": 1e-4,
}


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("preset", preset_names())
def test_presets_load_and_set_every_section(preset: str) -> None:
    settings = load_settings(preset)
    assert all(type(value_of(settings, key)) is not dict for key in known_keys())


def test_there_are_two_presets() -> None:
    assert preset_names() == ["mini", "paper"]


@pytest.mark.parametrize("key", PRINTED)
def test_the_paper_preset_is_the_paper(key: str) -> None:
    assert value_of(load_settings("paper", layout="genimage"), key) == PRINTED[key]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("reconstruct.strength=0.7", "reconstruct.strength", 0.7),
        ("reconstruct.guidance_scale=7", "reconstruct.guidance_scale", 7.0),
        ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),  # YAML 1.1 takes it for text
        ("train.epochs=3", "train.epochs", 3),
        ("train.augment.flip=0", "train.augment.flip", 0.0),
        ("train.augment.blur_kernel=[3, 5]", "train.augment.blur_kernel", (3, 5)),
        ("train_subsets=[adm, biggan]", "train_subsets", ("adm", "biggan")),
        ("train_subsets=null", "train_subsets", None),
        ("caption.prompt=a photo of", "caption.prompt", "a photo of"),
        ("caption.table=a=b.csv", "caption.table", "a=b.csv"),
        ("caption.model=", "caption.model", None),
        ("detector.residual=false", "detector.residual", False),
        ("reconstruct.sare_size=32", "reconstruct.sare_size", 32),
        (" seed = 5", "seed", 5),
    ],
)
def test_an_override_is_read_as_yaml(override: str, key: str, value: Any) -> None:
    changed, preset = load_settings("paper", [override]), load_settings("paper")
    assert value_of(changed, key) == value
    assert type(value_of(changed, key)) is type(value)
    others = [other for other in known_keys() if other != key]
    assert [value_of(changed, other) for other in others] == [value_of(preset, other) for other in others]


def test_the_last_override_wins() -> None:
    assert load_settings("mini", ["seed=1", "train.epochs=2", "seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reconstruct.strenght=1", "no setting 'reconstruct.strenght'. Did you mean 'reconstruct.strength'?"),
        ("guidance_scale=3", "Did you mean 'reconstruct.guidance_scale'?"),
        ("train.augment.flp=0", "Did you mean 'train.augment.flip'?"),
        ("eta=1", "Did you mean 'reconstruct.eta'?"),  # the right name without its section is like no key at all
        ("zzz=1", "no setting 'zzz'."),
        ("train={}", "no setting 'train'."),
        ("train.epochs", "write it as key=value"),
        ("train.epochs+=1", "no setting 'train.epochs+'. Did you mean 'train.epochs'?"),
        ("train_subsets=[adm", "not readable as YAML"),
        ("train_subsets=sdv1.4", "train_subsets"),
        ("train.epochs=many", "setting train.epochs:"),
        ("train.epochs=0", "(given: 0)"),
        ("train.epochs=2.5", "(given: 2.5)"),
        ("reconstruct.strength=-0.1", "setting reconstruct.strength:"),
        ("reconstruct.strength=1.01", "setting reconstruct.strength:"),
        ("reconstruct.eta=nought", "(given: 'nought')"),
        ("train.schedule=linear", "'cosine_annealing', 'cosine' or 'constant'"),
        ("train.augment.blur_kernel=[2, 6]", "two odd sizes"),
        ("train.augment.blur_kernel=[7, 3]", "the smaller first"),
        ("reconstruct.sare_size=half", "setting reconstruct.sare_size: "),
    ],
)
def test_a_bad_override_says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings("paper", [override])
    assert message in str(error.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load_settings("paper", ["train.epochs=0", "seed=x"])
    assert len(str(error.value).splitlines()) == 2


def own(path: Path, **changes: Any) -> str:
    values = load_settings("mini").model_dump(mode="json") | changes
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_settings_file_of_ones_own(tmp_path: Path, suffix: str) -> None:
    assert load_settings(own(tmp_path / f"mine{suffix}", seed=9)) == load_settings("mini", ["seed=9"])


def test_a_settings_file_with_faults(tmp_path: Path) -> None:
    full = load_settings("mini").model_dump(mode="json")
    del full["caption"]["captioner"]
    with pytest.raises(ConfigError, match=r"setting caption\.captioner is missing"):
        load_settings(own(tmp_path / "lacks.yaml", caption=full["caption"]))
    with pytest.raises(ConfigError, match=r"no setting 'evaluate\.dtyp'. Did you mean 'evaluate\.dtype'\?"):
        load_settings(own(tmp_path / "more.yaml", evaluate=full["evaluate"] | {"dtyp": "float32"}))
    with pytest.raises(ConfigError, match="setting evaluate:"):
        load_settings(own(tmp_path / "none.yaml", evaluate=None))
    with pytest.raises(ConfigError, match=r"--set evaluate\.batch_size=2: .*evaluate"):
        load_settings(str(tmp_path / "none.yaml"), ["evaluate.batch_size=2"])


@pytest.mark.parametrize(("text", "message"), [("seed: [", "not readable"), ("- seed", "no settings"), ("", "no sett")])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_settings(str(path))
    assert str(path) in str(error.value)


def test_no_such_preset() -> None:
    with pytest.raises(ConfigError, match=r"'papr'\. Did you mean 'paper'\? The presets are mini, paper"):
        load_settings("papr")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such settings file"):
        load_settings("nowhere.yaml")


@pytest.mark.parametrize("section", SECTIONS)
def test_runtime_and_files_name_fields(section: type[Settings]) -> None:
    assert section.runtime | section.files <= section.model_fields.keys()
    assert not section.runtime & section.files


def test_what_is_not_part_of_the_meaning() -> None:
    settings = load_settings("paper")
    neutral = {
        *("method", "noise_draws", "speed", "attention", "pad_heads", "size_multiple", "rounds"),
        *("sampler", "cache_interval", "token_merging"),  # as the preset has them
    }
    left_out = {
        "caption": {
            *("batch_size", "model", "revision", "table", "text_tokenizer", "text_tokenizer_revision"),
            *("server", "server_timeout", "server_model", "max_tiles"),
        },
        "reconstruct": {"batch_size", "shards_together", "model", "revision", *neutral},
        "detector": {
            "image_encoder",
            "image_encoder_revision",
            "semantic_encoder",
            "semantic_encoder_revision",
            "start_from",
        },
        "train": {
            *("workers", "checkpoint_steps", "tracker"),
            *("warmup_steps", "max_grad_norm", "tf32", "compile"),  # as the preset has them
        },
        "evaluate": {"batch_size", "near_copies"},
    }
    for name, fields in left_out.items():
        section = getattr(settings, name)
        assert type(section).model_fields.keys() - section.fingerprint_fields().keys() == fields
    assert settings.train.fingerprint_fields()["augment"]["noise_variance"] == [10, 50]


@pytest.mark.parametrize("section", [None, "reconstruct", "train"])
def test_settings_are_frozen(section: str | None) -> None:
    settings = load_settings("paper")
    target = getattr(settings, section) if section else settings
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, next(iter(type(target).model_fields)), 1)


@pytest.mark.parametrize("preset", ["paper", "mini"])
def test_whose_images_are_trained_on(preset: str, tmp_path: Path) -> None:
    """The paper's choice is of GenImage's subsets, which no other data have."""
    assert load_settings(preset, layout="genimage").train_subsets == ("sdv1.4",)
    for layout in ("folder", "forensynths", "unlabelled", None):
        assert load_settings(preset, layout=layout).train_subsets is None
    assert load_settings(preset, ["train_subsets=[flux]"], "genimage").train_subsets == ("flux",)
    assert load_settings(preset, ["train_subsets=null"], "genimage").train_subsets is None
    assert load_settings(preset, ["train_subsets={folder: [flux]}"], "folder").train_subsets == ("flux",)
    with pytest.raises(ConfigError, match=r"train_subsets: no layout 'genimag'. The layouts are folder, forensynths"):
        load_settings(preset, ["train_subsets={genimag: [sdv1.4]}"], "genimage")
    assert "genimage" not in yaml.safe_dump(load_settings(preset, layout="genimage").model_dump(mode="json"))
