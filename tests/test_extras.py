"""Extras: what is not installed is named with the command that installs it, and `.[dev]` installs all of them."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from sare_core.captioning.server import Server
from sare_core.config import load_settings
from sare_core.config.captioning import CaptionSettings
from sare_core.detection.page import Case
from sare_core.engine import slurm
from sare_core.errors import ConfigError
from sare_core.report.drawing import canvas_of
from sare_core.store import remote
from stages.serve import serve
from tests.conftest import STANDIN


def standin_caption() -> CaptionSettings:
    return load_settings(STANDIN, ["caption.captioner=server"]).caption


def draw() -> None:
    with canvas_of(1, 1):
        pass


def start() -> None:
    with mock.patch.dict(sys.modules):
        sys.modules.pop("sare_core.serving.app", None)
        serve("detector", port=0)


@pytest.mark.parametrize(
    ("extra", "package", "use"),
    [
        ("report", "matplotlib", draw),
        ("report", "jinja2", Case),
        ("web", "fastapi", start),
        ("slurm", "submitit", lambda: slurm._parse({})),
        ("server", "openai", lambda: Server(standin_caption())),
        ("s3", "s3fs", lambda: remote.filesystem("s3://bucket/never-asked-before")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, extra: str, package: str, use: Callable[[], object]
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, extra, raising=False)  # what was imported before
    with pytest.raises(ConfigError, match=rf"{package}.*pip install 'sare\[{extra}\]'"):
        use()


def test_the_development_install_has_every_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert f"sare[{','.join(name for name in extras if name != 'dev')}]" in extras["dev"]
    core = {line.partition(">")[0] for line in project["dependencies"]}
    assert {"open_clip_torch", "webdataset"} <= core
    assert not core & {"matplotlib", "jinja2", "submitit", "s3fs", "c2pa-python"}
