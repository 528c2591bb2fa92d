"""The command as a user starts and ends it."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sare_core
from sare_core.config import load_settings
from sare_core.detection.examining import DRAWS, ENCODINGS
from sare_core.errors import ConfigError
from stages.options import run_command
from stages.serve import serve
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

ROOT = Path(__file__).parents[2]


def test_from_start_to_end(tmp_path: Path, standin_models: Path) -> None:
    """Asked once, it gives the detector's own logit; SIGTERM ends it with exit code 0."""
    overrides = [*standin_overrides(standin_models), *SMALL]
    pipeline = Pipeline(load_settings(STANDIN, overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    pipeline.captions(), pipeline.reconstructions(), pipeline.detector()
    (folder,) = Path(pipeline.work).glob("tree/detectors/*")
    image = next((tmp_path / "tree").rglob("val/*/*"))
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "stages.serve", "--detector", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            (where,) = re.findall(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            with urllib.request.urlopen(f"{where}/v1/detect", image.read_bytes(), timeout=60) as answer:
                found = json.load(answer)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
    logit = sare_core.Detector.from_pretrained(folder, device="cpu").explain(image).logit
    assert found["logit"] == pytest.approx(logit, abs=2e-3)
    assert set(found["encodings"]) == set(ENCODINGS)
    assert len(found["draws"]) == DRAWS - 1


def test_without_a_detector() -> None:
    with pytest.raises(ConfigError, match="name a detector: sare serve --detector"):
        serve()


@pytest.mark.parametrize("name", ["", "https://sare.example.org", "sare.example.org/page"])
def test_what_is_no_name_of_a_host(name: str) -> None:
    with pytest.raises(ConfigError, match="write a name or an address alone"):
        serve("detector", allow_host=[name])


@pytest.mark.parametrize("given", [("--timeout", "inf"), ("--max-mb", "inf"), ("--max-megapixels", "inf")])
def test_numbers_without_end(
    given: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serve", "--detector", "/none", *given])
    with pytest.raises(SystemExit) as ended:
        run_command(serve)
    assert ended.value.code == 2
    assert f"{' '.join(given)}: give a number" in capsys.readouterr().err


def test_the_container_gets_versions_that_the_tests_passed_with() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "docs" / "constraints.txt").read_text().split("\n")[1:-1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = map(Requirement, [*project["dependencies"], *extras["web"], *extras["provenance"]])
    for each in wanted:
        if each.marker is None or each.marker.evaluate():
            assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each
    assert "PIP_CONSTRAINT=docs/constraints.txt" in (ROOT / "Dockerfile").read_text()
    assert "!docs/constraints.txt" in (ROOT / ".dockerignore").read_text().split()


def test_models_are_found_where_the_container_has_them() -> None:
    """A detector names its models by paths such as models/sd, from the folder that holds models/."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (mounted,) = re.findall(r"source=\$PWD/models,target=(\S+),readonly", (ROOT / "docs" / "serve.md").read_text())
    started_in = re.findall(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)[-1]
    assert Path(started_in, "models") == Path(mounted)
