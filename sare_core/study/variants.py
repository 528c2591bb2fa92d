"""What is compared: the variants of the detector, and the grid of strength, guidance and caption."""

from typing import NamedTuple

from sare_core.errors import ConfigError

NO_CAPTION = ["caption.captioner=none", "caption.model=null"]
FULL, ORACLE, DRAWS = "sare", "oracle", "draws"
DRAWS_UNCAPTIONED = "draws, uncaptioned"  # of the part `delta` alone


def table_captions(table: str) -> list[str]:
    return ["caption.captioner=table", "caption.model=null", f"caption.table={table}"]


def variants(wrong_captions: str, oracle: str | None = None, draws: int = 1) -> dict[str, list[str]]:
    """Name to settings. wrong_captions: the parquet that `sare_core.study.captions` writes.

    oracle: a table of captions that are right about every image, for a variant that shows what a better captioner would
    bring. draws: above 1, for variants whose map is the mean of so many draws of the noise. All variants share the
    images, the first draw of each image's noise, the fusion and the training seeds.
    """
    found = {
        FULL: [],  # as the preset has it: the captioned map
        "image": ["detector.semantic_input=image"],  # the same fusion, fed with x itself
        "vae": ["reconstruct.strength=0", *NO_CAPTION],  # |x − D(E(x))|
        "uncaptioned": NO_CAPTION,
        "wrong": table_captions(wrong_captions),  # the caption of another image, of another class
        "zero": ["detector.semantic_input=zero"],  # a map of zeros
        "map": ["detector.detector=map"],  # the map alone, without the image
        "both": ["detector.detector=difference"],  # the maps with and without the caption, side by side
    }
    if oracle is not None:
        found[ORACLE] = table_captions(oracle)
    if draws > 1:
        found[DRAWS] = [f"reconstruct.noise_draws={draws}"]
    return found


def reconstructed(changes: dict[str, list[str]]) -> dict[str, list[str]]:
    """Those of `variants` whose reconstructions are not another's."""
    return {name: changes[name] for name in (FULL, "uncaptioned", "wrong", "vae", ORACLE, DRAWS) if name in changes}


STRENGTHS = (0.3, 0.5, 0.7, 0.9)
GUIDANCES = (1.0, 2.5, 7.5)


class Cell(NamedTuple):
    """One place of the grid. guidance None: without a caption it has no effect (equation 2)."""

    strength: float
    guidance: float | None
    level: str
    settings: list[str]


def grid(levels: dict[str, list[str]]) -> list[Cell]:
    """Every strength, guidance and caption level. levels: name to settings, `none` apart."""
    cells = []
    for strength in STRENGTHS:
        noise = f"reconstruct.strength={strength}"
        cells.append(Cell(strength, None, "none", [noise, *NO_CAPTION]))
        for level, settings in levels.items():
            for guidance in GUIDANCES:
                changes = [noise, f"reconstruct.guidance_scale={guidance}", *settings]
                cells.append(Cell(strength, guidance, level, changes))
    return cells


def caption_levels(named: list[str]) -> dict[str, list[str]]:
    """`name=folder of a captioner`, as given on the command line, to settings; none given: the preset's captioner.

    Raises ConfigError: not of this form.
    """
    levels: dict[str, list[str]] = {}
    for text in named:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name == "none":
            raise ConfigError(f"--level {text}: write it as name=folder of a captioner; `none` is there anyway.")
        if name in levels:
            raise ConfigError(f"--level {text}: {name} is named twice.")
        levels[name] = [f"caption.model={folder}"]
    return levels or {"captioned": []}
