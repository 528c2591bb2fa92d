import hashlib
import shutil
from pathlib import Path

import pytest

from sare_core.config import Settings, load_settings
from sare_core.engine.fingerprint import differences, fingerprint
from sare_core.graph import Graph
from sare_core.models.weights import resolve


def model_folder(path: Path, content: bytes) -> Path:
    """A folder as a model has it, which nobody could load."""
    (path / "unet").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "unet" / "model.safetensors").write_bytes(content)
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("captioner", "diffusion", "tokenizer"):
        model_folder(tmp_path / "models" / name, name.encode())
    return tmp_path / "models"


def settings(models: Path, *overrides: str) -> Settings:
    places = (
        f"caption.model={models}/captioner",
        f"caption.text_tokenizer={models}/tokenizer",
        f"reconstruct.model={models}/diffusion",
    )
    return load_settings("paper", [*places, *overrides])


def fingerprints(settings: Settings, dataset: str = "it", work: str = "work") -> tuple[str, str]:
    """Of the captions and of the reconstructions, with the models' files as they lie now."""
    resolve.cache_clear()
    graph = Graph(settings, dataset, work)
    folders = graph.captions, graph.reconstructions
    assert folders[1].upstream["captions"].fingerprint == folders[0].fingerprint
    return folders[0].fingerprint, folders[1].fingerprint


def test_a_fingerprint_is_a_digest_of_canonical_json() -> None:
    text = '{"a":{"x":null,"y":[0.5,true]},"b":"é"}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert fingerprint({"b": "é", "a": {"y": [0.5, True], "x": None}}) == expected
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": float("nan")})


@pytest.mark.parametrize(
    "override",
    [
        "caption.batch_size=1",
        "reconstruct.batch_size=1",
        "train.workers=0",
        "train.epochs=1",
        "evaluate.batch_size=1",
        "train_subsets=null",
        "note=hello",
        "caption.revision=abc",  # of a hub model; a folder counts by its bytes
        "reconstruct.guidance_scale=7.50",
    ],
)
def test_what_changes_no_result_changes_no_fingerprint(models: Path, override: str) -> None:
    assert fingerprints(settings(models, override)) == fingerprints(settings(models))


def test_work_folder_and_dataset_are_not_in_it(models: Path) -> None:
    assert fingerprints(settings(models), "other", "memory://work") == fingerprints(settings(models))


@pytest.mark.parametrize(
    ("override", "captions", "reconstructions"),
    [
        ("view=jpeg:90", True, True),
        ("caption.num_beams=2", True, True),
        ("caption.captioner=llava-next", True, True),
        ("caption.dtype=float32", True, True),
        ("seed=1", False, True),
        ("reconstruct.strength=0.7", False, True),
        ("reconstruct.sare_size=64", False, True),
        ("reconstruct.keep_source=false", False, True),
        ("reconstruct.keep_source=recoded", False, True),
    ],
)
def test_what_changes_results_changes_fingerprints(
    models: Path, override: str, captions: bool, reconstructions: bool
) -> None:
    before, after = fingerprints(settings(models)), fingerprints(settings(models, override))
    assert (before[0] != after[0], before[1] != after[1]) == (captions, reconstructions)


def test_a_detector_counts_the_seed_of_training_and_the_noise_through_its_maps(models: Path) -> None:
    def detector(*overrides: str) -> str:
        encoders = (f"detector.image_encoder={models}/captioner", f"detector.semantic_encoder={models}/captioner")
        changed = settings(models, *encoders, *overrides)
        return Graph(changed, "it", "work").detectors(["shard"]).fingerprint

    assert len({detector(), detector("train.seed=1"), detector("seed=1")}) == 3
    assert fingerprints(settings(models, "train.seed=1")) == fingerprints(settings(models))


def test_a_copy_of_the_models_elsewhere_is_the_same(models: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(models, tmp_path / "safety_checker" / "copy"))
    assert fingerprints(settings(copy)) == fingerprints(settings(models))


@pytest.mark.parametrize("name", ["captioner", "diffusion", "tokenizer"])
def test_one_changed_byte_is_another_model(models: Path, name: str) -> None:
    before = fingerprints(settings(models))
    weights = models / name / "unet" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    after = fingerprints(settings(models))
    assert after[1] != before[1]
    assert (after[0] != before[0]) == (name != "diffusion")


def test_a_table_of_captions_counts_by_its_bytes(models: Path, tmp_path: Path) -> None:
    def of(table: Path) -> tuple[str, str]:
        overrides = ("caption.captioner=table", "caption.model=null", f"caption.table={table}")
        return fingerprints(settings(models, *overrides))

    tables = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for table, text in zip(tables, ("path,caption\n", "path,caption\n", "path,caption\n1.png,a\n"), strict=True):
        table.write_text(text)
    assert of(tables[0]) == of(tables[1]) != of(tables[2])


def test_differences_are_told_a_line_a_field() -> None:
    old = {"stage": "captions", "settings": {"strength": 0.5, "steps": 50}, "seed": 0}
    new = {"stage": "captions", "settings": {"strength": 0.7, "steps": 50}, "view": "raw"}
    assert differences(old, new) == ["seed 0 → None", "settings.strength 0.5 → 0.7", "view None → raw"]
    assert differences(old, old) == []
    assert differences({"model": "sha256:" + 64 * "a"}, {"model": None}) == ["model sha256:aaaaaaaaaaaa… → None"]
