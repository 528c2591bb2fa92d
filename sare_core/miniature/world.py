"""Every recipe of the miniature world, in one place: what is trained on what, with which seed and for how long.

    python -m sare_core.miniature --articles /usr/share/datasets/fashion-mnist --jobs 2

A recipe trains, or goes on, or loads what stands in the work folder; so calling one calls what it needs. `build` runs
them all, several at a time, each in a process of one thread, and packs what ships.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sare_core.engine.signals import check_stop, stop_cleanly
from sare_core.errors import SareError
from sare_core.miniature.corpus import load_scenes
from sare_core.miniature.scenes import CLASSES, Scenes


@dataclass(frozen=True)
class Subset:
    """A generator in the place of one of GenImage's, and how its files are called there."""

    name: str  # as the index calls it
    folder: str
    tag: str
    seed: int  # of its samples
    number: int  # which of the real test sets is its own


SUBSETS = (
    Subset("sdv1.4", "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4", "{label:03}_sdv4_{number:05}", 14, 0),
    Subset("sdv1.5", "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5", "{label:03}_sdv5_{number:05}", 15, 1),
    Subset("wukong", "wukong/imagenet_ai_0424_wukong", "{label:03}_wukong_{number:05}", 16, 2),
    Subset("adm", "ADM/imagenet_ai_0508_adm", "{label}_adm_{number}", 17, 3),
    Subset("glide", "glide/imagenet_glide", "GLIDE_1000_200_00_{label:03}_glide_{number:05}", 18, 4),
    Subset("vqdm", "VQDM/imagenet_ai_0419_vqdm", "VQDM_1000_200_00_{label:03}_vqdm_{number:05}", 19, 5),
    Subset("biggan", "BigGAN/imagenet_ai_0419_biggan", "{label:03}_biggan_{number:05}", 20, 6),
    Subset("midjourney", "Midjourney/imagenet_midjourney", "{label}_midjourney_{number}", 21, 7),
)


# Images of each class, real and fake, that ship. Training is on sdv1.4; the others' serve the transfer matrix alone.
TRAIN = {"sdv1.4": 2_000}
OTHERS_TRAIN = 300
TEST = 1_000


class World:
    """Recipes by name. `scale` shortens all in proportion, trainings and images: 1 is what ships, 0.01 a rehearsal."""

    def __init__(self, work: str | Path, articles: str | Path, scale: float = 1.0) -> None:
        self.work, self.articles, self.scale = Path(work), articles, scale

    def steps(self, full: int) -> int:
        return max(2, round(full * self.scale))

    def counts(self, subset: str) -> tuple[int, int]:
        """Images of each class, real or fake, of a subset: to train, to test."""
        train, test = (max(10, round(full * self.scale)) for full in (TRAIN.get(subset, OTHERS_TRAIN), TEST))
        return train, test

    @cached_property
    def scenes(self) -> Scenes:
        return load_scenes(self.work, self.articles, "models")

    def autoencoder(self) -> Any:
        from sare_core.miniature.autoencoder import train_autoencoder

        return train_autoencoder(self.work / "autoencoder", self.scenes.pixels, (16, 32, 64), self.steps(1600), seed=1)

    def clip(self) -> Any:
        from sare_core.miniature.contrast import train_clip

        return train_clip(self.work / "clip", self.scenes, self.steps(1000), seed=2)

    def image_encoder(self) -> Any:
        """CLIP's image tower, trained further on what the camera gives; the text tower stays as the UNet knows it."""
        from sare_core.miniature.contrast import train_image_tower

        return train_image_tower(self.work / "image_encoder", self.clip(), self.scenes, self.steps(1200), seed=10)

    def captioner(self) -> Any:
        from sare_core.miniature.captioner import train_captioner

        return train_captioner(
            self.work / "captioner", self.scenes.pixels, self.scenes.coarse, self.steps(4000), seed=3
        )

    def captioner_rich(self) -> Any:
        from sare_core.miniature.captioner import train_captioner

        return train_captioner(
            self.work / "captioner_rich", self.scenes.pixels, self.scenes.rich, self.steps(4000), seed=4
        )

    def semantic_encoder(self) -> Any:
        from sare_core.miniature.classifier import train_classifier

        return train_classifier(self.work / "semantic_encoder", self.scenes, self.steps(900), seed=5)

    def unet(self) -> Any:
        from sare_core.miniature.latent import new_unet, train_unet

        vae, text = self.autoencoder(), self.clip().text_model
        return train_unet(self.work / "unet", new_unet((64, 96), 6), vae, text, self.scenes, self.steps(1400), seed=6)

    def sdv1_4(self) -> Callable[..., np.ndarray]:
        return self._latent(self.autoencoder(), self.clip().text_model, self.unet())

    def sdv1_5(self) -> Callable[..., np.ndarray]:
        """Stable Diffusion 1.5 is 1.4 trained on: so is this, with other seeds."""
        from sare_core.miniature.latent import train_unet

        vae, text = self.autoencoder(), self.clip().text_model
        unet = self.unet().requires_grad_(True)
        folder = self.work / "unet_further"
        return self._latent(
            vae, text, train_unet(folder, unet, vae, text, self.scenes, self.steps(250), seed=7, rate=4e-4)
        )

    def wukong(self) -> Callable[..., np.ndarray]:
        """A second latent diffusion, with an autoencoder and a UNet of its own, and other sizes.

        Its guidance is 2: at 4 pixel statistics tell its images from real ones (AUC 0.78, and 0.75 is the limit).
        """
        from sare_core.miniature.autoencoder import train_autoencoder
        from sare_core.miniature.latent import new_unet, train_unet

        text = self.clip().text_model
        vae = train_autoencoder(self.work / "autoencoder_2", self.scenes.pixels, (16, 32, 32), self.steps(800), seed=8)
        unet = new_unet((64, 64), 9)
        unet = train_unet(self.work / "unet_2", unet, vae, text, self.scenes, self.steps(900), seed=9)
        return self._latent(vae, text, unet, guidance_scale=2.0)

    def _latent(self, vae: Any, text_encoder: Any, unet: Any, guidance_scale: float = 4.0) -> Callable[..., np.ndarray]:
        from sare_core.miniature.latent import assemble, sample_latent

        pipeline = assemble(vae, text_encoder, unet)
        return lambda classes, seed: sample_latent(pipeline, classes, seed, guidance_scale)

    def other(self, name: str) -> Callable[..., np.ndarray]:
        """One of the generators that are no latent diffusion."""
        from sare_core.miniature.generators import GENERATORS

        generator = GENERATORS[name]
        model = generator.train(self.work / "generators" / name, self.scenes, self.steps(generator.steps), seed=0)
        return lambda classes, seed: generator.sample(model, classes, seed)

    def sampler(self, name: str) -> Callable[..., np.ndarray]:
        """sample(classes, seed) of a generator, by the name of its subset: (n, 32, 32) in [0, 1]."""
        own = {"sdv1.4": self.sdv1_4, "sdv1.5": self.sdv1_5, "wukong": self.wukong}
        return own[name]() if name in own else self.other(name)

    def samples(self, subset: Subset) -> np.ndarray:
        """All images of a generator, train before test, the n-th of class n mod 10: (n, 32, 32) float32 in [0, 1]."""
        kept = self.work / "samples" / f"{subset.name}.npz"
        classes = np.arange(sum(self.counts(subset.name))) % len(CLASSES)
        if kept.is_file():
            with np.load(kept) as saved:
                if len(saved["classes"]) == len(classes):
                    return saved["pixels"]
        pixels = self.sampler(subset.name)(classes, subset.seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept.with_suffix(".partial.npz"), pixels=pixels, classes=classes)
        kept.with_suffix(".partial.npz").replace(kept)
        return pixels


# What waits for what. Long ones stand first: with two at a time the chain autoencoder, unet, sdv1.5 is the longest.
RECIPES: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "clip": (),
    "image_encoder": ("clip",),
    "unet": ("autoencoder", "clip"),
    "captioner": (),
    "semantic_encoder": (),
    "captioner_rich": (),
    "glide": (),
    "wukong": ("clip",),
    "adm": (),
    "vqdm": (),
    "midjourney": (),
    "biggan": (),
    "sdv1.5": ("unet",),
    "sdv1.4": ("unet",),
}


def run_recipe(world: World, name: str) -> None:
    """Train one recipe to its end; for a generator, draw its images too."""
    import torch

    torch.set_num_threads(1)  # or the number of cores would show in the weights
    subsets = {subset.name: subset for subset in SUBSETS}
    if name in subsets:
        world.samples(subsets[name])
    else:
        getattr(world, name)()


def build(world: World, jobs: int) -> None:
    """Run all recipes, `jobs` at a time, each in a process of its own.

    Raises SareError: a recipe failed; the others that run are waited for, and a further call goes on from there.
    """
    world.scenes  # noqa: B018  composed once, before several processes want them
    waiting, done, failed = dict(RECIPES), set[str](), list[str]()
    running: dict[str, subprocess.Popen[bytes]] = {}
    began = {}
    with stop_cleanly():
        try:
            while (waiting and not failed) or running:
                check_stop()
                ready = [name for name, needs in waiting.items() if done.issuperset(needs)]
                for name in ready[: jobs - len(running)] if not failed else []:
                    del waiting[name]
                    running[name] = _start(world, name)
                    began[name] = time.monotonic()
                time.sleep(0.2)
                for name in [name for name, process in running.items() if process.poll() is not None]:
                    code = running.pop(name).returncode
                    took = time.monotonic() - began[name]
                    print(f"{name}: {'done' if code == 0 else f'failed ({code})'}, {took:.0f} s", flush=True)
                    (failed.append if code else done.add)(name)
        finally:  # or two would write one checkpoint when the same command goes on
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    if failed:
        raise SareError(f"{', '.join(failed)} failed; what it printed says why. The same command goes on from there.")


def _start(world: World, name: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "sare_core.miniature",
        "--work",
        str(world.work),
        "--articles",
        str(world.articles),
    ]
    command += ["--scale", str(world.scale), "--only", name]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
