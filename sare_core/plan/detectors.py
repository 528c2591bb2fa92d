"""What there is to choose from: every registered detector, what it needs, and what it takes under some settings."""

from typing import Any, NamedTuple

from sare_core.config import Settings, load_settings
from sare_core.detectors import detector_class, detector_names
from sare_core.detectors.parts import maps_to_score
from sare_core.errors import ConfigError
from sare_core.plan.estimate import captions_read, maps_read
from sare_core.reconstruction import method_of


class Entry(NamedTuple):
    """One detector.

    needs: what is read in training. maps: by name, each with the settings that differ from the run's. released: whether
    weights are published that its layers can take. trained: its parts that learn. parameters, trained_parameters:
    counts. flops: to score an image, without and, with_maps, with the captions and maps that are read for it.
    problem: why it could not be counted, else empty; the numbers that this left out are None.
    """

    name: str
    source: str
    needs: list[str]
    maps: dict[str, dict[str, Any]]
    released: bool
    trained: list[str] = []  # noqa: RUF012  # never changed
    parameters: int | None = None
    trained_parameters: int | None = None
    flops: int | None = None
    with_maps: int | None = None
    problem: str = ""


def catalogue(preset: str, overrides: list[str] | None) -> list[Entry]:
    """Every detector under a preset, by name. Nothing is read but configurations.

    Raises ConfigError: no such preset or setting.
    """
    load_settings(preset, overrides)  # plugins register what they have
    return [_entry(name, preset, overrides or []) for name in detector_names()]


def _entry(name: str, preset: str, overrides: list[str]) -> Entry:
    from sare_core.plan import flops, models  # torch: seconds

    kind = detector_class(name)
    entry = Entry(name, kind.source, sorted(kind.needs), kind.maps, kind.released)
    try:
        settings = load_settings(preset, [*overrides, f"detector.detector={name}"])
        model = models.detector(settings.detector)
        learning = {key: value.numel() for key, value in model.named_parameters() if value.requires_grad}
        entry = entry._replace(
            trained=list(dict.fromkeys(key.partition(".")[0] for key in learning)),
            parameters=sum(value.numel() for value in model.parameters()),
            trained_parameters=sum(learning.values()),
            flops=flops.detector_cost(settings.detector).forward,
        )
        return entry._replace(with_maps=(entry.flops or 0) + _maps_cost(settings))
    except ConfigError as error:
        return entry._replace(problem=str(error).splitlines()[0])


def _maps_cost(settings: Settings) -> int:
    """FLOPs of the captions and maps that are read to score a square image."""
    from sare_core.plan import flops, models

    if not maps_to_score(detector_class(settings.detector.detector)):
        return 0
    total = 0
    for each in captions_read(settings).values():
        total += flops.caption_flops(each.caption) if method_of(each.reconstruct).needs_captions else 0
    for each in maps_read(settings).values():
        size = (each.reconstruct.longer_side,) * 2
        captioned = each.caption.captioner != "none"
        found = flops.reconstruct_flops(each.reconstruct, models.diffusion(each.reconstruct), [size], captioned)
        total += found[size]
    return total
