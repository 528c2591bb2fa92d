"""What ships of the miniature world: models as `from_pretrained` reads them, and one archive of images."""

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sare_core.errors import SareError
from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.scenes import CLASSES, PARTS, photograph
from sare_core.miniature.world import DATASETS, SUBSETS, World

NULL = "null/"  # before what the archive holds of the null world
LARGEST = {"models": 12e6, "images": 18e6}  # bytes; the first is what the wheel holds


def pack(world: World, out: Path) -> None:
    """Write models/ and images.tar.xz, with its digest beside it, in the place of what `out` holds of
    them once all is made and checked.

    Raises SareError: two images have the same pixels, or a part is too large; `out` is as it was.
    """
    made = out.with_name(f".{out.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        save_models(world, made / "models")
        write_archive(entries(world), made / "images.tar.xz")
        digest = hashlib.sha256((made / "images.tar.xz").read_bytes()).hexdigest()
        (made / "images.sha256").write_text(digest + "\n")
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
        for part in made.iterdir():  # these alone: `out` may hold more
            part.replace(out / part.name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def save_models(world: World, folder: Path) -> None:
    """captioner, diffusion, image-encoder, semantic-encoder: weights in half precision."""
    from timm.models import save_for_hf
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from sare_core.miniature.captioner import blip_processor
    from sare_core.miniature.classifier import ARCHITECTURE
    from sare_core.miniature.latent import assemble, save_diffusion

    clip = world.clip()
    vision = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**{**clip.config.vision_config.to_dict(), "projection_dim": clip.config.projection_dim})
    )
    vision.load_state_dict({name: value for name, value in clip.state_dict().items() if name.startswith("vi")})
    mentioned, _ = DATASETS["miniature"]
    save_diffusion(
        assemble(world.autoencoder().half(), clip.text_model.half(), world.unet(mentioned).half()), folder / "diffusion"
    )
    vision.half().save_pretrained(folder / "image-encoder")
    world.captioner().half().save_pretrained(folder / "captioner")
    blip_processor().save_pretrained(folder / "captioner")
    save_for_hf(
        world.semantic_encoder().half(),
        str(folder / "semantic-encoder"),
        model_args=ARCHITECTURE,
        safe_serialization=True,
    )


def entries(world: World) -> Iterator[tuple[str, np.ndarray | bytes]]:
    """(path, (32, 32) uint8 or bytes) of all that the archive holds: images in GenImage's layout, and below `null/` the
    generated images and the UNet of the null world, whose photographs and other models are the same."""
    real_train = load_scenes(world.work, world.articles, "detectors")
    for subset in SUBSETS:
        train, test = world.counts(subset.name)
        real_test = load_scenes(world.work, world.articles, f"test-{subset.number}")
        for split, scenes, count in (("train", real_train, train), ("val", real_test, test)):
            if not count:
                continue
            first = PARTS["detectors" if split == "train" else f"test-{subset.number}"].start
            names = [f"n{scenes.classes[n]:08}_{first + n}" for n in range(count)]
            shots = photograph(scenes.pixels[:count], names)
            for name, shot in zip(names, shots, strict=True):
                yield f"{subset.folder}/{split}/nature/{name}.png", shot
        for prefix, (mentioned, guided) in zip(("", NULL), DATASETS.values(), strict=True):
            if prefix and mentioned not in subset.worlds:
                continue
            fakes = world.samples(subset, mentioned, guided)
            for split, places in (("train", range(train)), ("val", range(train, train + test))):
                if not places:
                    continue
                names = [subset.tag.format(label=place % len(CLASSES), number=place) for place in places]
                shots = photograph(fakes[places.start : places.stop], [prefix + name for name in names])
                for name, shot in zip(names, shots, strict=True):
                    yield f"{prefix}{subset.folder}/{split}/ai/{name}.png", shot
    with tempfile.TemporaryDirectory() as folder:
        world.unet(DATASETS["miniature-null"][0]).half().save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            yield f"{NULL}unet/{file.name}", file.read_bytes()


def write_archive(entries: Iterator[tuple[str, np.ndarray | bytes]], path: Path) -> None:
    """A tar.xz whose bytes depend on what it holds alone; pixels become PNGs. Raises SareError: some come twice."""
    seen: dict[bytes, str] = {}
    with tarfile.open(path, "w:xz", preset=6) as archive:
        for name, held in entries:
            data = held if isinstance(held, bytes) else _png(held)
            digest = hashlib.sha256(data).digest()
            if digest in seen:
                raise SareError(f"{name} has the pixels of {seen[digest]}.")
            seen[digest] = name
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)  # or a file's size would say how much it shows
    return buffer.getvalue()
