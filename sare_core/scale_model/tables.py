"""The premise table: worlds and guidance scales, one row each, and a sheet of pictures beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.scale_model.corpus import load_scenes
from sare_core.scale_model.premise import Instruments, compare, measure
from sare_core.scale_model.scenes import SIDE, photograph
from sare_core.scale_model.world import GUIDANCE, MENTIONED, World

SEED = 30  # of the images that are drawn here
COLUMNS = {
    "captioner_right": "captioner right (%)",
    "extras": "extras seen",
    "fit_auc": "fits its prompt (AUC, %)",
    "kept": "x̂ keeps the class (%)",
    "autoencoder_auc": "autoencoder's error (AUC, %)",
    "delta_captioned": "Δ, captioned (levels)",
    "delta_uncaptioned": "Δ, uncaptioned",
    "delta_share": "Δ of the difference",
    "captioned_auc": "captioned error (AUC, %)",
    "share_auc": "difference (AUC, %)",
}
NOTES = (
    "Photographs of the validation part against images of the world's own reconstruction model, prompted by the class "
    "alone. Extras: things beside the main article, as a network counts them. Fits its prompt: how often the captioner "
    "holds the prompt likelier of a generated image than of a photograph. Difference: captioned less uncaptioned error "
    "of an image. Δ: mean over photographs less mean over generated images, with 95 % intervals over images; AUCs "
    "above 50 are in the paper's direction."
)


def write_premise(world: World, out: Path, each: int) -> None:
    """Measure every world that is trained, at each guidance scale; write premise.md, premise.csv and premise.png."""
    real = load_scenes(world.work, world.articles, "validation")
    names = [f"real-{number}" for number in range(each)]
    photographs = photograph(real.pixels[:each], names)
    rows: list[dict[str, Any]] = []
    sheet = [photographs[:16]]
    for mentioned in MENTIONED:
        instruments = _instruments(world, mentioned)
        seen = measure(photographs, real.classes[:each], names, instruments)
        rows.append({"world": mentioned, "images": "photographs", **compare(seen, seen)})
        for guidance in GUIDANCE:
            pixels, classes = world.draw(mentioned, guidance, each, SEED)
            drawn_names = [f"{mentioned}-{guidance}-{number}" for number in range(each)]
            shots = photograph(pixels, drawn_names)
            sheet.append(shots[:16])
            drawn = measure(shots, classes, drawn_names, instruments)
            rows.append({"world": mentioned, "images": f"guidance {guidance:g}", **compare(seen, drawn)})
            print(json.dumps(rows[-1]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    _sheet(np.stack(sheet)).save(out / "premise.png", optimize=True)
    (out / "premise.md").write_text(_markdown(rows, each), encoding="utf-8")
    pl.DataFrame([_flat(row) for row in rows]).write_csv(out / "premise.csv")


def _instruments(world: World, mentioned: float) -> Instruments:
    from sare_core.scale_model.captioner import blip_processor

    folder = world.work / f"diffusion-{mentioned}"
    world.diffusion(mentioned).save_pretrained(folder)
    return Instruments(world.semantic_encoder(), world.counter(), world.captioner(), blip_processor(), str(folder))


def _markdown(rows: list[dict[str, Any]], each: int) -> str:
    lines = [
        "# The premise",
        "",
        "    python -m sare_core.scale_model premise --articles /usr/share/datasets/fashion-mnist",
        "",
        f"{NOTES} {each} photographs and {each} images a row.",
        "",
        f"| mentioned | images | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---:|' * len(COLUMNS)}",
    ]
    for row in rows:
        first = row["images"] == "photographs"
        cells = [
            "" if first and name not in ("captioner_right", "extras", "kept") else _cell(row[name]) for name in COLUMNS
        ]
        lines.append(f"| {row['world']:g} | {row['images']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | tuple[float, float, float]) -> str:
    if isinstance(value, tuple):
        middle, low, high = value
        return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    return f"{value:.1f}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        parts = zip(("", "_low", "_high"), value, strict=True) if isinstance(value, tuple) else [("", value)]
        flat |= {f"{name}{end}": part for end, part in parts}
    return flat


def _sheet(rows: np.ndarray, scale: int = 3) -> Image.Image:
    """(rows, columns, 32, 32) uint8 as one picture, white between the images."""
    height, width = rows.shape[:2]
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    sheet = padded.transpose(0, 2, 1, 3).reshape(height * (SIDE + 2), width * (SIDE + 2))
    return Image.fromarray(sheet).resize((sheet.shape[1] * scale, sheet.shape[0] * scale), Image.Resampling.NEAREST)
