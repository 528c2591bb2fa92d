"""Settings of a detector's own: validated by the class that the settings name."""

import pytest

from sare_core.config import load_settings
from sare_core.config.stored import read_settings
from sare_core.detectors.image import ImageSettings
from sare_core.detectors.map import MapSettings
from sare_core.detectors.sare import SareSettings
from sare_core.errors import ConfigError

CLASSES = {"sare": SareSettings, "image": ImageSettings, "map": MapSettings, "difference": MapSettings}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("preset", ["paper", "mini"])
def test_a_preset_keeps_what_another_detector_knows(preset: str, name: str) -> None:
    before, after = (load_settings(preset, overrides) for overrides in ([], [f"detector.detector={name}"]))
    assert type(after.detector) is CLASSES[name]
    kept = set(type(after.detector).model_fields) & set(type(before.detector).model_fields) - {"detector"}
    assert {key: getattr(after.detector, key) for key in kept} == {key: getattr(before.detector, key) for key in kept}
    assert after.model_copy(update={"detector": before.detector}) == before
    assert read_settings(after.model_dump(mode="json"), "about.json") == after, "as a folder keeps them"


def test_a_setting_of_ones_own_takes_its_default_and_a_change() -> None:
    assert load_settings("mini", ["detector.detector=map"]).detector.standardize is True  # type: ignore[attr-defined]
    changed = load_settings("mini", ["detector.standardize=false", "detector.detector=map"])  # in any order
    assert changed.detector.standardize is False  # type: ignore[attr-defined]
    assert changed.detector.fingerprint_fields()["standardize"] is False


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["detector.detector=image", "detector.residual=false"], "no setting 'detector.residual'."),
        (["detector.detector=map", "detector.standardise=false"], "Did you mean 'detector.standardize'?"),
        (["detector.standardize=false"], "no setting 'detector.standardize'."),
        (["detector.detector=map", "detector.standardize=2"], "setting detector.standardize:"),
        (["detector.detector=mapp"], "no detector 'mapp'. The detectors are conv_b, de_fake, difference"),
    ],
)
def test_what_the_detector_does_not_know_is_told(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings("paper", overrides)
    assert message in str(error.value)
