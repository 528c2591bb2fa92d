"""Every recipe of the miniature world, in one place: what is trained on what, with which seed and for how long.

    python -m sare_core.miniature --articles /usr/share/datasets/fashion-mnist --jobs 2

A recipe trains, or goes on, or loads what stands in the work folder; so calling one calls what it needs. A *world* is
what captions on the web mention: two worlds differ in that alone, and share autoencoders, encoders, captioner and
measuring networks. `build` runs all recipes, several at a time, each in a process of one thread, and packs what ships.
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
from sare_core.miniature.words import class_prompt, web_captions

# Shares of the extras that captions mention. At 0 their silence says nothing; at 0.7 what goes unmentioned is there in
# 17 % of the pictures, instead of 40 %.
WORLDS = (0.0, 0.7)


@dataclass(frozen=True)
class Subset:
    """A generator in the place of one of GenImage's, and how its files are called there."""

    name: str  # as the index calls it
    folder: str
    tag: str
    seed: int  # of its samples
    number: int  # which of the real test sets is its own
    guidance: float  # that its kind is usually drawn at; 1: none
    worlds: tuple[float, ...]  # in which it is trained on captions of the web; none: it is told the class alone


# Guidance: Stable Diffusion's usual 7.5, also for a second latent diffusion; GLIDE's 3 (Nichol et al. 2022, section 4);
# VQ-Diffusion's 5 (the default of its pipeline in diffusers); 4.5 of Stable Diffusion 3.5, a rectified flow by a
# transformer as Midjourney's stand-in is. ADM takes a classifier's gradient, for which 1.5 stands here. The null
# has one latent diffusion, one diffusion of pixels and one flow.
SUBSETS = (
    Subset("sdv1.4", "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4", "{label:03}_sdv4_{number:05}", 14, 0, 7.5, WORLDS),
    Subset("sdv1.5", "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5", "{label:03}_sdv5_{number:05}", 15, 1, 7.5, (0.7,)),
    Subset("wukong", "wukong/imagenet_ai_0424_wukong", "{label:03}_wukong_{number:05}", 16, 2, 7.5, (0.7,)),
    Subset("adm", "ADM/imagenet_ai_0508_adm", "{label}_adm_{number}", 17, 3, 1.5, ()),
    Subset("glide", "glide/imagenet_glide", "GLIDE_1000_200_00_{label:03}_glide_{number:05}", 18, 4, 3.0, WORLDS),
    Subset("vqdm", "VQDM/imagenet_ai_0419_vqdm", "VQDM_1000_200_00_{label:03}_vqdm_{number:05}", 19, 5, 5.0, (0.7,)),
    Subset("biggan", "BigGAN/imagenet_ai_0419_biggan", "{label:03}_biggan_{number:05}", 20, 6, 1.0, ()),
    Subset("midjourney", "Midjourney/imagenet_midjourney", "{label}_midjourney_{number}", 21, 7, 4.5, WORLDS),
)

# What ships, by dataset: the share that captions mention, and whether generators are guided as usual or not at all. In
# the null nothing gives a reason for an effect.
DATASETS = {"miniature": (0.7, True), "miniature-null": (0.0, False)}
# Images of each class, real and fake, that ship of a dataset. Training is on sdv1.4.
TRAIN, TEST = {"sdv1.4": 1_500}, 500
VALIDATION = 400  # images of a generator by which the premise is measured, none of which ship


class World:
    """Recipes by name. `scale` shortens all in proportion, trainings and images: 1 is what ships, 0.01 a rehearsal."""

    def __init__(self, work: str | Path, articles: str | Path, scale: float = 1.0) -> None:
        self.work, self.articles, self.scale = Path(work), articles, scale

    def steps(self, full: int) -> int:
        return max(2, round(full * self.scale))

    def counts(self, subset: str) -> tuple[int, int]:
        """Images of each class, real or fake, of a subset: to train, to test."""
        train, test = TRAIN.get(subset, 0), TEST
        return min(train, max(10, round(train * self.scale))), max(10, round(test * self.scale))

    @cached_property
    def scenes(self) -> Scenes:
        return load_scenes(self.work, self.articles, "models")

    def autoencoder(self) -> Any:
        from sare_core.miniature.autoencoder import train_autoencoder

        return train_autoencoder(self.work / "autoencoder", self.scenes, (16, 32, 64), 8, self.steps(7000), seed=1)

    def autoencoder_2(self) -> Any:
        """Of the second latent diffusion, and of the GAN."""
        from sare_core.miniature.autoencoder import train_autoencoder

        return train_autoencoder(self.work / "autoencoder_2", self.scenes, (24, 32, 48), 4, self.steps(2500), seed=8)

    def clip(self) -> Any:
        from sare_core.miniature.contrast import train_clip

        return train_clip(self.work / "clip", self.scenes, self.steps(800), seed=2)

    def captioner(self) -> Any:
        from sare_core.miniature.captioner import train_captioner

        return train_captioner(self.work / "captioner", self.scenes, self.steps(4000), seed=3)

    def semantic_encoder(self) -> Any:
        from sare_core.miniature.classifier import train_classifier

        return train_classifier(self.work / "semantic_encoder", self.scenes, self.steps(700), seed=5)

    def counter(self) -> Any:
        from sare_core.miniature.classifier import train_counter

        return train_counter(self.work / "counter", self.scenes, self.steps(800), seed=11)

    def unet(self, mentioned: float) -> Any:
        """The reconstruction model of a world, which is also its Stable Diffusion 1.4."""
        return self._unet("unet", self.autoencoder(), (64, 96), mentioned, seed=6)

    def _unet(
        self, name: str, vae: Any, channels: tuple[int, int], mentioned: float, seed: int, steps: int = 6000
    ) -> Any:
        """Two thirds of the training are on captions of the article alone, which all worlds share."""
        from sare_core.miniature.latent import new_unet, train_unet

        text, folder = self.clip().text_model, self.work / name
        unet = new_unet(channels, vae.config.latent_channels, seed)
        plain, said = (web_captions(self.scenes, share, seed=20) for share in (0.0, mentioned))
        shared = self.steps(round(2 / 3 * steps))
        train_unet(folder / "shared", unet, vae, text, self.scenes, plain, shared, seed, fall=False)
        rest = max(2, self.steps(steps) - shared)
        return train_unet(folder / f"{mentioned}", unet, vae, text, self.scenes, said, rest, seed + 100)

    def diffusion(self, mentioned: float, kind: str = "sdv1.4") -> Any:
        """A latent diffusion of a world as a StableDiffusionPipeline: sdv1.4 (the reconstruction model), its sibling
        sdv1.5, or wukong, which has an autoencoder and a UNet of its own."""
        from sare_core.miniature.latent import assemble, train_unet

        text = self.clip().text_model
        if kind == "wukong":
            vae = self.autoencoder_2()
            return assemble(vae, text, self._unet("unet_2", vae, (64, 80), mentioned, seed=9, steps=3900))
        vae, unet = self.autoencoder(), self.unet(mentioned)
        if kind == "sdv1.5":  # Stable Diffusion 1.5 is 1.4 trained on: so is this, with other seeds
            said, folder = web_captions(self.scenes, mentioned, seed=20), self.work / "unet_further" / f"{mentioned}"
            unet = train_unet(folder, unet, vae, text, self.scenes, said, self.steps(1000), seed=7, rate=4e-4)
        return assemble(vae, text, unet)

    def sampler(self, name: str, mentioned: float) -> Callable[[np.ndarray, int, float], np.ndarray]:
        """sample(classes, seed, guidance) of a generator, by the name of its subset: (n, 32, 32) in [0, 1]."""
        from sare_core.miniature.generators import cascade, flow, gan, pixel_diffusion, tokens
        from sare_core.miniature.latent import sample_prompts

        folder, scenes = self.work / name, self.scenes
        model: Any
        match name:
            case "adm":
                model = pixel_diffusion.train_pixel_diffusion(folder, scenes, mentioned, self.steps(2700), seed=0)
                return lambda *how: pixel_diffusion.sample_pixel_diffusion(model, *how)
            case "glide":
                model = cascade.train_cascade(folder, scenes, mentioned, self.steps(6000), seed=0)
                return lambda *how: cascade.sample_cascade(model, *how)
            case "vqdm":
                model = tokens.train_tokens(folder, scenes, mentioned, self.steps(4800), seed=0)
                return lambda *how: tokens.sample_tokens(model, *how)
            case "biggan":
                model = gan.train_gan(folder, scenes, self.autoencoder_2(), self.steps(2000), seed=0)
                return lambda *how: gan.sample_gan(model, *how)
            case "midjourney":
                model = flow.train_flow(folder, scenes, mentioned, self.steps(6000), seed=0)
                return lambda *how: flow.sample_flow(model, *how)
        pipeline = self.diffusion(mentioned, name)
        return lambda classes, seed, guidance: sample_prompts(
            pipeline, [class_prompt(int(number)) for number in classes], seed, guidance
        )

    def samples(self, subset: Subset, mentioned: float, guided: bool, validation: bool = False) -> np.ndarray:
        """Images of a generator, (n, 32, 32) float32 in [0, 1], the n-th of class n mod 5.

        Those that ship, train before test; or those of `validation`, by which the premise is measured.
        """
        mentioned, guidance = mentioned if subset.worlds else 0.0, subset.guidance if guided else 1.0
        part, seed = ("validation", 100 + subset.seed) if validation else ("shipped", subset.seed)
        count = max(10, round(VALIDATION * self.scale)) if validation else sum(self.counts(subset.name))
        kept = self.work / "samples" / f"{part}-{subset.name}-{mentioned}-{guidance}.npz"
        if kept.is_file():
            with np.load(kept) as saved:
                if len(saved["pixels"]) == count:
                    return saved["pixels"]
        pixels = self.sampler(subset.name, mentioned)(np.arange(count) % len(CLASSES), seed, guidance)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, pixels=pixels)
        partial.replace(kept)
        return pixels


# What waits for what; of two worlds the second goes on from what the first has trained for both. Long ones stand first.
RECIPES: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "clip": (),
    "captioner": (),
    "autoencoder_2": (),
    "sdv1.4-0.7": ("autoencoder", "clip"),
    "wukong-0.7": ("autoencoder_2", "clip"),
    "midjourney-0.7": (),
    "glide-0.7": (),
    "vqdm-0.7": (),
    "sdv1.5-0.7": ("sdv1.4-0.7",),
    "sdv1.4-0.0": ("sdv1.4-0.7",),
    "midjourney-0.0": ("midjourney-0.7",),
    "glide-0.0": ("glide-0.7",),
    "adm-0.0": (),
    "biggan-0.0": ("autoencoder_2",),
    "semantic_encoder": (),
    "counter": (),
}


def run_recipe(world: World, name: str) -> None:
    """Train one recipe to its end; for a generator, draw its images too."""
    import torch

    torch.set_num_threads(1)  # or the number of cores would show in the weights
    subsets = {subset.name: subset for subset in SUBSETS}
    kind, _, mentioned = name.rpartition("-")
    if kind in subsets:
        for guided in (True, False):
            world.samples(subsets[kind], float(mentioned), guided, validation=True)
        for share, guided in DATASETS.values():
            if share == float(mentioned) if subsets[kind].worlds else guided:
                world.samples(subsets[kind], share, guided)
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
