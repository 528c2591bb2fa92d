"""The shipped miniature, put where the mini preset and `make demo` look for it."""

import hashlib
import shutil
import tarfile
from collections import Counter
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

from sare_core.errors import ConfigError
from sare_core.miniature.once import VERSION, built_once

# Images of each class that the demo takes from a folder: all of these, or every one of them with `full`.
DEMO = {"stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/train": 600, "val": 100}

IMAGES_README = """\
A scale model in the layout of GenImage. It is NOT GenImage: 32×32, gray, and its eight generators are small models of
eight kinds that stand in the places of GenImage's own.

nature: articles of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence) set into scenes, and photographed.
ai: drawn by the generators for the class alone, and put through the same camera. All files are PNGs of one kind.
"""


def unpack_models(folder: str | Path) -> Path:
    """Write the trained miniature models into `folder` (captioner, captioner-rich, diffusion, image-encoder,
    semantic-encoder); nothing is done where they stand already. Returns it.

    Raises ConfigError: `folder` holds something that this function has not written, or nothing ships here.
    """
    with as_file(files("sare_core.miniature") / "shipped" / "models") as shipped:
        _require(shipped)
        sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(shipped.rglob("*")) if file.is_file()]
        recipe = {"version": VERSION, "models": hashlib.sha256("".join(sums).encode()).hexdigest()}
        with built_once(Path(folder), recipe) as partial:
            if partial:
                for file in filter(Path.is_file, shipped.rglob("*")):
                    target = partial / file.relative_to(shipped)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, target)
    return Path(folder)


def unpack_images(folder: str | Path, full: bool = False) -> Path:
    """Write the shipped images into `folder`, in GenImage's layout: the demo's part, or all. Returns it.

    Raises ConfigError: as `unpack_models`.
    """
    with as_file(files("sare_core.miniature") / "shipped" / "images.tar.xz") as shipped:
        _require(shipped)
        digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
        with built_once(Path(folder), {"version": VERSION, "images": digest, "full": full}) as partial:
            if partial:
                taken: Counter[str] = Counter()
                with tarfile.open(shipped, "r:xz") as archive:
                    for member in archive:
                        where = str(PurePosixPath(member.name).parent)
                        if member.isfile() and (full or taken[where] < _demo_limit(where)):
                            taken[where] += 1
                            data, target = archive.extractfile(member), partial / member.name
                            assert data is not None, "the archive holds nothing but files"
                            target.parent.mkdir(parents=True, exist_ok=True)
                            target.write_bytes(data.read())  # as of now: an older index must not take it for its own
                (partial / "README.txt").write_text(IMAGES_README, encoding="utf-8")
    return Path(folder)


def _demo_limit(where: str) -> int:
    split = str(PurePosixPath(where).parent)
    return DEMO.get(split, DEMO.get(PurePosixPath(split).name, 0))


def _require(shipped: Path) -> None:
    if not shipped.exists():
        raise ConfigError(
            f"{shipped}: not there. The miniature ships with the sources; `make mini-world` trains it anew (hours)."
        )
