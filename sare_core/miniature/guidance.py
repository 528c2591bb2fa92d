r"""One generator at several guidance scales: how the method's Δ hangs on how closely fakes keep to their prompt.

    python -m sare_core.miniature.guidance --articles /usr/share/datasets/fashion-mnist --out data/by-guidance
    sare index --layout folder --root data/by-guidance/images.csv --name by-guidance
    sare study --dataset by-guidance --preset mini --set train_subsets=null --out benchmarks/by-guidance \
        --only fairness --only delta

Real images are the validation part's, which no table of the miniature's test counts: so a choice may rest on these.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from sare_core.errors import ConfigError
from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.scenes import CLASSES, photograph

SCALES = (1.0, 2.0, 4.0, 7.5)  # 1: no guidance; 7.5: Stable Diffusion's usual one
EACH = 500  # real, and generated, for each scale: together all 2,000 articles of the validation part
SEED = 22  # of the samples; world.SUBSETS has those of the test


def draw(models: Path, work: Path, articles: str, out: Path, each: int = EACH) -> Path:
    """Write the images and `images.csv`, a table for `sare index --layout folder`; a subset is a scale. Returns it.

    Raises ConfigError: `each` is not from 1 to 500, `out` holds something already, or `models` no diffusion model.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    from sare_core.miniature.latent import sample_latent

    if not 1 <= each <= EACH:
        raise ConfigError(f"--each {each}: from 1 to {EACH}, or the validation part's 2,000 articles do not suffice.")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; name another folder, or delete it.")
    if not (models / "diffusion").is_dir():
        raise ConfigError(f"{models / 'diffusion'}: not there; `sare mini` unpacks it.")
    pipeline = StableDiffusionPipeline.from_pretrained(
        models / "diffusion", torch_dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    real = load_scenes(work, articles, "validation")
    rows = []

    def write(pixels: np.ndarray, classes: np.ndarray, scale: float, kind: str, label: int) -> None:
        folder = out / f"guidance-{scale}" / kind
        folder.mkdir(parents=True)
        names = [f"{kind}_{scale}_{number}" for number in range(len(pixels))]
        for name, shot, number in zip(names, photograph(pixels, names), classes, strict=True):
            Image.fromarray(shot).save(folder / f"{name}.png", optimize=True)
            path = f"{folder.relative_to(out)}/{name}.png"
            rows.append((path, label, f"guidance-{scale}", "test", CLASSES[int(number)]))

    for place, scale in enumerate(SCALES):
        part = slice(place * each, (place + 1) * each)
        write(real.pixels[part], real.classes[part], scale, "real", 0)
        classes = np.arange(each) % len(CLASSES)
        write(sample_latent(pipeline, classes, SEED, guidance_scale=scale), classes, scale, "fake", 1)
        print(f"guidance {scale}: {each} real, {each} generated", flush=True)
    table = out / "images.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "subset", "split", "class"))
        writer.writerows(rows)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw images of the shipped diffusion model at several guidances.")
    parser.add_argument("--models", type=Path, default=Path("models/mini"), help="what `sare mini` wrote")
    parser.add_argument("--work", type=Path, default=Path("work/mini-world"), help="where composed scenes are kept")
    parser.add_argument("--articles", required=True, help="Fashion-MNIST's folder of four .gz files")
    parser.add_argument("--out", type=Path, default=Path("data/by-guidance"))
    parser.add_argument("--each", type=int, default=EACH, help="real and generated images for each scale")
    chosen = parser.parse_args()
    try:
        print(draw(chosen.models, chosen.work, chosen.articles, chosen.out, chosen.each))
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
