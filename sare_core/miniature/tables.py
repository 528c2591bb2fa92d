"""The premise table: worlds, generators and guidance, one row each; and a sheet of pictures beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.premise import GATES, Instruments, compare, measure
from sare_core.miniature.scenes import CLASSES, SIDE, photograph
from sare_core.miniature.world import SUBSETS, VALIDATION, World

COLUMNS = {
    "extras": "extras seen",
    "fit_auc": "fits its prompt",
    "kept": "x̂ keeps the class (%)",
    "autoencoder_auc": "autoencoder's error",
    "encoder_auc": "encoder on itself",
    "pixels_auc": "pixel statistics of sdv1.4",
    "delta_captioned": "Δ, captioned",
    "delta_uncaptioned": "Δ, uncaptioned",
    "delta_share": "Δ of the difference",
    "captioned_auc": "captioned error",
    "share_auc": "difference",
}
SHOWN = {
    "extras_fewer": "extras",
    "fit_auc": "fit",
    "autoencoder_auc": "autoencoder",
    "encoder_auc": "encoder",
    "kept": "class",
}
# Worlds, and the diffusion model that reconstructs: the world's own; and, as a cross-check, a second one, under which
# an effect that is a fingerprint of the first would be gone.
RECONSTRUCTED = ((0.7, "sdv1.4"), (0.7, "wukong"), (0.0, "sdv1.4"))
COMMAND = "python -m sare_core.miniature --articles /usr/share/datasets/fashion-mnist --premise benchmarks/miniature"
NOTES = """\
Photographs of the validation part against images that each generator drew for the article alone, reconstructed under
the captioner's caption, and under none: *by* sdv1.4 of the same world; and, as a cross-check, by wukong, whose
autoencoder and UNet are others. *Extras seen*: things beside the article, as a
network counts them. AUCs are in percent, above 50 in the paper's direction. *Fits its prompt*: how often the captioner
holds the prompt likelier of a generated image than of a photograph. *Autoencoder's error*: of |x − D(E(x))| alone.
*Encoder on itself*: a regression on CLIP's features, fitted to this generator. *Pixel statistics of sdv1.4*: a
regression that was fitted to sdv1.4 of the same world and guidance. Δ: mean error of photographs less that of
generated images, in 8-bit levels, with 95 % intervals over images. *Difference*: captioned less uncaptioned error of
an image.
"""


def write_premise(world: World, out: Path) -> None:
    """Measure every generator of every world, guided and not; write premise.md, premise.csv and premise.png."""
    scenes = load_scenes(world.work, world.articles, "validation")
    each = min(VALIDATION, len(scenes))
    names = [f"real-{number}" for number in range(each)]
    photographs = photograph(scenes.pixels[:each], names)
    rows: list[dict[str, Any]] = []
    sheet = [photographs[:20]]
    for mentioned, model in RECONSTRUCTED:
        instruments = _instruments(world, mentioned, model)
        folder = world.work / "premise" / f"{mentioned}-{model}"
        real = _measured(folder / "photographs", photographs, scenes.classes[:each], names, instruments)
        by: dict[str, Any] = {"world": mentioned, "model": model}
        about = {**by, "guidance": None, "reads": None}
        rows.append({**about, "images": "photographs", **compare(real, real, real), "missed": []})
        for guided in (True, False) if model == "sdv1.4" else (True,):
            training = None
            for subset in SUBSETS:
                # Those that read captions stand in their worlds; the others in every world, as they ship.
                if mentioned not in subset.worlds and (subset.worlds or not guided):
                    continue
                guidance = subset.guidance if guided else 1.0
                tags = [f"{subset.name}-{guidance}-{number}" for number in range(each)]
                shots = photograph(world.samples(subset, mentioned, guided, validation=True)[:each], tags)
                classes = np.arange(len(shots)) % len(CLASSES)
                drawn = _measured(folder / f"{subset.name}-{guidance}", shots, classes, tags, instruments)
                training = drawn if training is None else training  # sdv1.4 is the first
                about = {**by, "guidance": guidance, "reads": bool(subset.worlds)}
                rows.append({**about, "images": subset.name, **compare(real, drawn, training)})
                print(_line(rows[-1]), flush=True)
                if guided and (mentioned, model) == RECONSTRUCTED[0]:
                    sheet.append(shots[:20])
    out.mkdir(parents=True, exist_ok=True)
    _sheet(np.stack(sheet)).save(out / "premise.png", optimize=True)
    (out / "premise.md").write_text(_markdown(rows, each), encoding="utf-8")
    pl.DataFrame([_flat(row) for row in rows], infer_schema_length=None).write_csv(out / "premise.csv")


def _measured(
    kept: Path, shots: np.ndarray, classes: np.ndarray, names: list[str], instruments: Instruments
) -> pl.DataFrame:
    """`measure`, or what it found before."""
    file = kept.with_name(f"{kept.name}.parquet")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        measure(shots, classes, names, instruments).write_parquet(file.with_suffix(".partial"))
        file.with_suffix(".partial").replace(file)
    return pl.read_parquet(file)


def _instruments(world: World, mentioned: float, model: str) -> Instruments:
    from sare_core.miniature.captioner import blip_processor
    from sare_core.miniature.latent import save_diffusion

    folder = world.work / f"diffusion-{mentioned}-{model}"
    save_diffusion(world.diffusion(mentioned, model), folder)
    captioner, processor = world.captioner(), blip_processor()
    return Instruments(world.semantic_encoder(), world.counter(), world.clip(), captioner, processor, str(folder))


def _markdown(rows: list[dict[str, Any]], each: int) -> str:
    lines = [
        "# The premise",
        "",
        f"    {COMMAND}",
        "",
        f"{NOTES}{each} photographs and {each} images a row. The captioner names "
        f"{rows[0]['captioner_right']:.1f} % of the photographs rightly.",
        "",
        f"| captions mention | by | images | guidance | {' | '.join(COLUMNS.values())} | gates missed |",
        f"|---|---|---|---:|{'---:|' * len(COLUMNS)}---|",
    ]
    for row in rows:
        photographs = row["guidance"] is None
        cells = ["" if photographs and name not in ("extras", "kept") else _cell(row[name]) for name in COLUMNS]
        guidance = "" if photographs else f"{row['guidance']:g}"
        name = row["images"] + (" (class only)" if row["reads"] is False else "")
        missed = ", ".join(SHOWN[gate] for gate in row["missed"]) or ("" if photographs else "none")
        lines.append(f"| {row['world']:g} | {row['model']} | {name} | {guidance} | {' | '.join(cells)} | {missed} |")
    limits = (f"{SHOWN[gate]} {low:g} to {high:g}" for gate, (low, high) in GATES.items())
    lines += ["", f"Gates, set before: {'; '.join(limits)}. *Extras*: how many fewer than in photographs."]
    return "\n".join(lines).replace(" to inf", " or more") + "\n"


def _line(row: dict[str, Any]) -> str:
    cells = (f"{COLUMNS[name]} {_cell(row[name])}" for name in COLUMNS)
    about = f"{row['world']:g} {row['model']} {row['images']} {row['guidance']:g}"
    return f"{about}: {', '.join(cells)}; missed: {row['missed']}"


def _cell(value: float | tuple[float, float, float]) -> str:
    if isinstance(value, tuple):
        middle, low, high = value
        return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    return f"{value:.1f}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, tuple):
            flat |= {f"{name}{end}": part for end, part in zip(("", "_low", "_high"), value, strict=True)}
        else:
            flat[name] = " ".join(value) if isinstance(value, list) else value
    return flat


def _sheet(rows: np.ndarray, scale: int = 3) -> Image.Image:
    """(rows, columns, 32, 32) uint8 as one picture, white between the images."""
    height, width = rows.shape[:2]
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    sheet = padded.transpose(0, 2, 1, 3).reshape(height * (SIDE + 2), width * (SIDE + 2))
    return Image.fromarray(sheet).resize((sheet.shape[1] * scale, sheet.shape[0] * scale), Image.Resampling.NEAREST)
