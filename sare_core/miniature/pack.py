"""What ships of the miniature world: models as `from_pretrained` reads them, and one archive of images."""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sare_core.errors import SareError
from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.scenes import PARTS, photograph

if TYPE_CHECKING:
    from sare_core.miniature.world import World

LARGEST = {"models": 30e6, "images": 25e6}  # bytes


def pack(world: "World", out: Path) -> None:
    """Write models/ and images.tar.xz, in the place of what `out` holds of them once all is made and checked.

    Raises SareError: two images have the same pixels, or a part is too large; `out` is as it was.
    """
    made = out.with_name(f".{out.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        save_models(world, made / "models")
        write_archive(images(world), made / "images.tar.xz")
        sizes = {
            "models": sum(file.stat().st_size for file in (made / "models").rglob("*") if file.is_file()),
            "images": (made / "images.tar.xz").stat().st_size,
        }
        for name, size in sizes.items():
            print(f"{out / name}: {size / 1e6:.1f} MB")
            if size > LARGEST[name]:
                raise SareError(f"{out / name}: {size / 1e6:.1f} MB, more than {LARGEST[name] / 1e6:.0f} MB.")
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out / "models", ignore_errors=True)
        for part in made.iterdir():  # these two alone: `out` may hold more
            part.replace(out / part.name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def save_models(world: "World", folder: Path) -> None:
    """captioner, captioner-rich, diffusion, image-encoder, semantic-encoder: weights in half precision."""
    from timm.models import save_for_hf
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from sare_core.miniature.captioner import blip_processor
    from sare_core.miniature.classifier import ARCHITECTURE
    from sare_core.miniature.latent import assemble, save_diffusion

    clip = world.image_encoder()
    vision = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**{**clip.config.vision_config.to_dict(), "projection_dim": clip.config.projection_dim})
    )
    vision.load_state_dict({name: value for name, value in clip.state_dict().items() if name.startswith("vi")})
    save_diffusion(
        assemble(world.autoencoder().half(), world.clip().text_model.half(), world.unet().half()), folder / "diffusion"
    )
    vision.half().save_pretrained(folder / "image-encoder")
    for name, captioner in (("captioner", world.captioner()), ("captioner-rich", world.captioner_rich())):
        captioner.half().save_pretrained(folder / name)
        blip_processor().save_pretrained(folder / name)
    save_for_hf(
        world.semantic_encoder().half(),
        str(folder / "semantic-encoder"),
        model_args=ARCHITECTURE,
        safe_serialization=True,
    )


def images(world: "World") -> Iterator[tuple[str, np.ndarray]]:
    """(path in GenImage's layout, (32, 32) uint8) of every image that ships."""
    from sare_core.miniature.world import SUBSETS

    real_train = load_scenes(world.work, world.articles, "detectors")
    used = 0
    for subset in SUBSETS:
        train, test = world.counts(subset.name)
        real_test = load_scenes(world.work, world.articles, f"test-{subset.number}")
        fakes = world.samples(subset)
        for split, scenes, numbers in (
            ("train", real_train, range(used, used + train)),
            ("val", real_test, range(test)),
        ):
            first = PARTS["detectors" if split == "train" else f"test-{subset.number}"].start
            names = [f"n{scenes.classes[n]:08}_{first + n}" for n in numbers]
            shots = photograph(scenes.pixels[numbers.start : numbers.stop], names)
            for name, shot in zip(names, shots, strict=True):
                yield f"{subset.folder}/{split}/nature/{name}.png", shot
        used += train
        for split, places in (("train", range(train)), ("val", range(train, train + test))):
            names = [subset.tag.format(label=place % 10, number=place) for place in places]
            for name, shot in zip(names, photograph(fakes[places.start : places.stop], names), strict=True):
                yield f"{subset.folder}/{split}/ai/{name}.png", shot


def write_archive(entries: Iterator[tuple[str, np.ndarray]], path: Path) -> None:
    """A tar.xz of PNGs whose bytes depend on the pixels alone."""
    seen: dict[bytes, str] = {}
    with tarfile.open(path, "w:xz", preset=6) as archive:
        for name, pixels in entries:
            digest = hashlib.sha256(pixels.tobytes()).digest()
            if digest in seen:
                raise SareError(f"{name} has the pixels of {seen[digest]}.")
            seen[digest] = name
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(member, buffer)
