"""A small dataset in the layout of GenImage: photographs, and what the stand-in diffusion model draws."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# Photographs inside the two packages; val comes from other photographs than train.
PHOTOS = {
    "train": [
        "skimage/astronaut.png",
        "skimage/chelsea.png",
        "skimage/coffee.png",
        "skimage/motorcycle_left.png",
        "skimage/hubble_deep_field.jpg",
        "skimage/brick.png",
        "skimage/grass.png",
        "skimage/coins.png",
    ],
    "val": [
        "sklearn/china.jpg",
        "sklearn/flower.jpg",
        "skimage/rocket.jpg",
        "skimage/camera.png",
        "skimage/gravel.png",
        "skimage/retina.jpg",
    ],
}
PHOTO_FOLDERS = {"skimage": ("skimage", "data"), "sklearn": ("sklearn", "datasets/images")}

CLASSES = {  # ImageNet's index: its WNID and name
    0: ("n01440764", "tench"),
    281: ("n02123045", "tabby cat"),
    504: ("n03063599", "coffee mug"),
    671: ("n03792782", "mountain bike"),
    817: ("n04285008", "sports car"),
    825: ("n04326547", "stone wall"),
    975: ("n09332890", "lakeside"),
    985: ("n11939491", "daisy"),
}
DRAWN_SIZES = [(64, 64), (96, 64), (64, 96), (128, 96)]  # width, height


def build_images(models_folder: Path, out_folder: Path) -> Path:
    """Write a small dataset in GenImage's layout, fakes drawn by the stand-in diffusion model; returns its folder.

    Two subsets: Stable Diffusion 1.4 (48 real and 48 fake to train, 16 and 16 to test) and 1.5 (16 and 16 to test).
    Real (nature): photographs that scikit-image and scikit-learn ship, whole and in crops, JPEG of quality 96, up to
    160 pixels on the longer side; the classes in their names mean nothing. Fake (ai): coloured noise, PNG, 64 to 128
    pixels on the longer side. The same models give the same bytes.
    """
    pipeline = _drawing_pipeline(models_folder / "diffusion")
    sdv4 = out_folder / "stable_diffusion_v_1_4" / "imagenet_ai_0419_sdv4"
    sdv5 = out_folder / "stable_diffusion_v_1_5" / "imagenet_ai_0424_sdv5"
    plan = [(sdv4, "train", "sdv4", 48, 7.5), (sdv4, "val", "sdv4", 16, 7.5), (sdv5, "val", "sdv5", 16, 3.0)]
    for number, (subset, split, tag, count, guidance) in enumerate(plan):
        _save_photographs(subset / split / "nature", split, count, np.random.default_rng(100 * number))
        _save_drawn(subset / split / "ai", pipeline, tag, count, guidance, seed=100 * number)
    return out_folder


def _drawing_pipeline(folder: Path) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None, local_files_only=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _save_drawn(folder: Path, pipeline: Any, tag: str, count: int, guidance: float, seed: int) -> None:
    """Draw `count` images in batches of one size each; class c's n-th is named as GenImage names it."""
    folder.mkdir(parents=True)
    classes = list(CLASSES)
    batch = count // len(DRAWN_SIZES)
    for first, (width, height) in zip(range(0, count, batch), DRAWN_SIZES, strict=True):
        numbers = range(first, first + batch)
        drawn = pipeline(
            [f"a photo of a {CLASSES[classes[n % len(classes)]][1]}" for n in numbers],
            width=width,
            height=height,
            num_inference_steps=4,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(1000 * seed + n) for n in numbers],
        ).images
        for n, image in zip(numbers, drawn, strict=True):
            image.save(folder / f"{classes[n % len(classes)]:03}_{tag}_{n // len(classes):05}.png")


def _save_photographs(folder: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """Save `count` photographs: first each of the split's whole, then crops of them in turn."""
    folder.mkdir(parents=True)
    wnids = [wnid for wnid, _ in CLASSES.values()]
    photos = []
    for name in PHOTOS[split]:
        package, _, file = name.partition("/")
        module, data = PHOTO_FOLDERS[package]
        with files(module).joinpath(data, file).open("rb") as stream:
            photos.append(Image.open(stream).convert("RGB"))
    for n in range(count):
        photo = photos[n % len(photos)]
        if n >= len(photos):
            sides = (rng.uniform(0.3, 0.8, size=2) * photo.size).astype(int)
            left, top = rng.integers(0, np.array(photo.size) - sides)
            photo = photo.crop((left, top, left + sides[0], top + sides[1]))
        longer = 160 if n < len(photos) else int(rng.integers(96, 161))
        scale = longer / max(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        number = int(rng.integers(1, 600)) * 80 + n  # distinct, and as scattered as ImageNet's
        name = f"{wnids[n % len(wnids)]}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08}"
        photo.resize(size, Image.Resampling.LANCZOS).save(folder / f"{name}.JPEG", quality=96)
