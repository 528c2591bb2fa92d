"""A hub model's commit: locked in the work folder by the first run, or pinned in the settings by `sare pin`."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sare_core.config import Settings, load_settings
from sare_core.config.section import Section
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.models.pins import locked_commit
from sare_core.models.weights import resolve
from sare_core.pinning import models_in
from stages.pin import pin
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.hub import COMMIT, NEWER, empty_hub, publish
from tests.pipeline import Pipeline, outputs
from tests.trees import genimage_tree

MODELS = ("captioner", "tokenizer", "diffusion", "image-encoder", "semantic-encoder")
ON_HUB = [
    "caption.model=owner/captioner",
    "caption.text_tokenizer=owner/tokenizer",
    "reconstruct.model=owner/diffusion",
    "detector.image_encoder=owner/image-encoder",
    "detector.semantic_encoder=owner/semantic-encoder",
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hub = empty_hub(tmp_path / "hub", monkeypatch)
    for name in MODELS:
        publish(hub, f"owner/{name}", {"config.json": "{}"})
    return hub


def folder_names(settings: Settings, work: Path) -> list[str]:
    """The folders that a later process computes: captions, reconstructions, detector."""
    resolve.cache_clear()
    graph = Graph(settings, "tree", str(work))
    folders = [
        graph.captions,
        graph.reconstructions,
        graph.detectors(["shard"]),
    ]
    return [folder.fingerprint for folder in folders]


def move_all(hub: Path) -> None:
    """Upstream, somebody edits the README of every model."""
    for name in MODELS:
        publish(hub, f"owner/{name}", {"config.json": "{}", "README.md": "new"}, NEWER)


def test_every_model_of_a_section_has_a_revision_and_neither_is_hashed_by_name() -> None:
    sections = [value for _, value in load_settings("paper") if isinstance(value, Section)]
    named = {key for section in sections for key in type(section).model_fields if "model" in key or "encoder" in key}
    named |= {"text_tokenizer", "text_tokenizer_revision"}
    named -= {"tune_image_encoder", "server_model"}  # the latter is a name on a server, where no commit can be seen
    assert {"revision", *named} == {key for s in sections for pair in s.models.items() for key in pair}
    assert all({*section.models, *section.models.values()} <= section.files for section in sections)


def test_a_work_folder_keeps_the_commits_that_its_first_run_found(hub: Path, tmp_path: Path) -> None:
    settings = load_settings("paper", ON_HUB)
    before, elsewhere = folder_names(settings, tmp_path / "work"), folder_names(settings, tmp_path / "idle")
    assert before == elsewhere
    move_all(hub)
    assert folder_names(settings, tmp_path / "work") == before
    fresh = folder_names(settings, tmp_path / "fresh")
    assert not set(fresh) & set(before), "a new work folder takes the newest"
    locks = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "work" / "models.lock").iterdir()}
    assert locks.keys() == {f"owner--{name}" for name in MODELS}
    assert {lock["commit"] for lock in locks.values()} == {COMMIT}


def test_each_revision_is_locked_for_itself_and_a_commit_needs_no_lock(hub: Path, tmp_path: Path) -> None:
    publish(hub, "owner/captioner", {"config.json": "{}"}, NEWER, ref="refs-pr-1")
    work = str(tmp_path / "work")
    assert resolve("owner/captioner", None, work).digest == f"commit:{COMMIT}"
    assert resolve("owner/captioner", "refs-pr-1", work).digest == f"commit:{NEWER}"
    publish(hub, "owner/captioner", {"config.json": "{}"}, "a" * 40, ref="refs-pr-1")
    assert resolve("owner/captioner", "refs-pr-1", work).digest == f"commit:{NEWER}"
    assert resolve("owner/captioner", "a" * 40, work).digest == f"commit:{'a' * 40}"
    locks = sorted(path.name for path in (tmp_path / "work" / "models.lock").iterdir())
    assert locks == ["owner--captioner.json", "owner--captioner@refs-pr-1.json"]


def test_of_many_that_start_at_once_one_decides_for_all(tmp_path: Path) -> None:
    together, found = threading.Barrier(8), list[str]()

    def first_run(number: int) -> None:
        def newest() -> str:
            together.wait()  # nobody has written a lock when all of them ask
            return f"{number:040x}"

        found.append(locked_commit(str(tmp_path), "owner/name", None, newest))

    threads = [threading.Thread(target=first_run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    (lock,) = (tmp_path / "models.lock").iterdir()
    assert json.loads(lock.read_text())["commit"] == found[0]


def test_the_commit_is_told_when_it_is_locked_and_when_it_is_taken(
    hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path / "work")
    resolve("owner/captioner", None, work)
    resolve("owner/captioner", None, work)
    lock = f"{work}/models.lock/owner--captioner.json"
    assert caplog.messages == [f"owner/captioner: locked at commit {COMMIT} for this work folder, in {lock}."]
    resolve.cache_clear()
    resolve("owner/captioner", None, work)
    assert caplog.messages[1:] == [f"owner/captioner: at commit {COMMIT}, as {lock} has it."]
    monkeypatch.setenv("RANK", "3")
    resolve.cache_clear()
    resolve("owner/captioner", None, work)
    assert len(caplog.messages) == 2, "one process of a node says it"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"commit": null}', '{"commit": "main"}'])
def test_a_broken_lock_is_never_read_as_none(hub: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "models.lock").mkdir()
    (tmp_path / "models.lock" / "owner--captioner.json").write_text(text)
    with pytest.raises(ConfigError, match=r"models\.lock/owner--captioner\.json: names no commit.*about\.json"):
        resolve("owner/captioner", None, str(tmp_path))


def test_a_commit_that_is_gone_from_the_hub_is_named(hub: Path, tmp_path: Path) -> None:
    locked_commit(str(tmp_path), "owner/captioner", None, lambda: NEWER)
    with pytest.raises(ConfigError, match=f"owner/captioner: .*at revision {NEWER}"):
        resolve("owner/captioner", None, str(tmp_path))


def test_stages_go_on_in_their_folders_when_the_hub_moves_between_two_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin_models: Path
) -> None:
    """As in the midst of an array: each task is a process of its own, and upstream moves after the first."""
    hub = empty_hub(tmp_path / "hub", monkeypatch)
    for model, folder in (("captioner", "captioner"), ("tokenizer", "diffusion/tokenizer")):
        publish(hub, f"owner/{model}", standin_models / folder)
    on_hub = ON_HUB[:2]
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL, *on_hub])
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=2, subsets=["sdv1.4"]), shard_size=4)
    first, *rest = pipeline.shards()
    assert pipeline.captions([first]).done == [first]
    for model, folder in (("captioner", "captioner"), ("tokenizer", "diffusion/tokenizer")):
        publish(hub, f"owner/{model}", standin_models / folder, NEWER)
    outcome = pipeline.captions()
    assert (outcome.before, outcome.done) == ([first], rest)
    assert len({Path(name).parent for name in outputs(pipeline.work)}) == 1, "one folder of captions"
    (folder,) = (Path(pipeline.work) / "tree" / "captions").iterdir()
    made_by = Folder.open(pipeline.work, "tree", "captions", folder.name).made_by
    assert made_by["weights"] == {"model": f"commit:{COMMIT}", "text_tokenizer": f"commit:{COMMIT}"}
    assert len(read_index(pipeline.manifests, "tree").shards) == 1 + len(rest) > 1


OWN = """\
# My settings.
note: "x # no comment"
train_subsets:
    - sdv1.4   # odd indentation
caption:
  captioner: blip
  model: owner/captioner    # the captioner
  max_new_tokens: 20
  num_beams: 1
  dtype: float16
  text_tokenizer: 'owner/tokenizer'
  text_tokenizer_revision:
  batch_size: 128

"""


@pytest.fixture
def own(tmp_path: Path, hub: Path) -> Callable[..., Path]:
    """`own(reconstruct={"revision": "v1"})`: a settings file with comments, with changes to what follows them."""

    def write(**changes: dict[str, str]) -> Path:
        rest = load_settings("paper", ON_HUB).model_dump(mode="json", include={"reconstruct", "detector", "train"})
        rest |= {"evaluate": {"dtype": "float32", "batch_size": 64}}
        rest["reconstruct"].pop("revision")
        for section, values in changes.items():
            rest[section] |= values
        path = tmp_path / "own.yaml"
        path.write_text(OWN + yaml.safe_dump(rest, sort_keys=False))
        return path

    return write


def test_pin_writes_commits_and_leaves_all_else_as_it_was(own: Callable[..., Path]) -> None:
    path = own()
    before = path.read_text()
    pin(str(path))
    after = path.read_text()
    assert f"  model: owner/captioner    # the captioner\n  revision: {COMMIT}\n" in after
    assert f"  text_tokenizer_revision: {COMMIT}\n" in after
    assert {named.revision for named in models_in(load_settings(str(path)))} == {COMMIT}
    lines = [line for line in after.splitlines() if "revision" not in line]
    assert lines == [line for line in before.splitlines() if "revision" not in line]


def test_pin_replaces_a_branch_keeps_a_commit_and_says_so(
    own: Callable[..., Path], hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(hub, "owner/diffusion", {"config.json": "{}"}, NEWER, ref="fp16")
    path = own(reconstruct={"revision": "fp16"}, detector={"image_encoder_revision": "b" * 40})
    pin(str(path))
    revisions = {named.key: named.revision for named in models_in(load_settings(str(path)))}
    assert revisions.pop("image_encoder") == "b" * 40
    assert set(revisions.values()) == {COMMIT, NEWER}
    said = capsys.readouterr().out
    assert f"detector.image_encoder: owner/image-encoder: {'b' * 40} (pinned before)" in said
    assert "4 models pinned" in said
    text = path.read_text()
    pin(str(path))
    assert path.read_text() == text
    assert "0 models pinned" in capsys.readouterr().out


def test_runs_with_pinned_settings_do_not_move_whatever_the_work_folder(own: Callable[..., Path], hub: Path) -> None:
    path = own()
    pin(str(path))
    settings = load_settings(str(path))
    before = folder_names(settings, path.parent / "work")
    move_all(hub)
    assert folder_names(settings, path.parent / "elsewhere") == before
    assert not (path.parent / "work").exists(), "there is nothing to lock"


def test_pin_a_preset_into_a_file_of_ones_own(tmp_path: Path, hub: Path) -> None:
    for named in models_in(load_settings("paper")):
        if not (hub / f"models--{named.model.replace('/', '--')}").exists():
            publish(hub, named.model, {"config.json": "{}"})
    with pytest.raises(ConfigError, match=r"--out paper\.yaml"):
        pin("paper")
    out = tmp_path / "pinned.yaml"
    pin("paper", out)
    pinned, paper = load_settings(str(out)), load_settings("paper")
    assert {named.revision for named in models_in(pinned)} == {COMMIT}
    for name, section in paper:
        other = getattr(pinned, name)
        assert other == section or other.fingerprint_fields() == section.fingerprint_fields()
    assert '# 4.1: "a pre-trained BLIP model"' in out.read_text()
    with pytest.raises(ConfigError, match="exists"):
        pin("paper", out)


def test_pin_writes_nothing_when_one_model_is_unavailable(own: Callable[..., Path]) -> None:
    path = own(detector={"semantic_encoder": "owner/nowhere"})
    before = path.read_text()
    with pytest.raises(ConfigError, match="owner/nowhere"):
        pin(str(path))
    assert path.read_text() == before


@pytest.mark.parametrize("flow", [True, False])
def test_pin_in_other_styles_of_yaml(tmp_path: Path, hub: Path, flow: bool) -> None:
    values = load_settings("paper", ON_HUB).model_dump(mode="json", exclude_none=True)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values, default_flow_style=flow).rstrip("\n"))
    pin(str(path))
    assert {named.revision for named in models_in(load_settings(str(path)))} == {COMMIT}


def test_pin_refuses_what_it_cannot_edit_and_says_what_to_write(tmp_path: Path, hub: Path) -> None:
    values = load_settings("paper", ON_HUB).model_dump(mode="json", exclude_none=True)
    model = values["reconstruct"].pop("model")
    text = yaml.safe_dump(values).replace("reconstruct:\n", f"reconstruct:\n  <<: {{model: {model}}}\n")
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"Write into them yourself: .*reconstruct.revision: {COMMIT}"):
        pin(str(path))
    assert path.read_text() == text
