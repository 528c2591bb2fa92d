"""The shipped miniature, put where the mini preset and `make demo` look for it."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

import polars as pl

from sare_core.errors import ConfigError, TransientError
from sare_core.index.genimage import find
from sare_core.miniature.once import VERSION, built_once
from sare_core.miniature.words import class_prompt
from sare_core.miniature.world import DATASETS, SUBSETS
from sare_core.store.storage import Store

# Images of each class that the demo takes from a folder: all of these, or every one of them with `full`.
DEMO = {"stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/train": 400, "val": 50}
ORACLE = "oracle-captions.csv"  # what a captioner that is always right would say
PREMISE = "premise.csv"  # what was measured of the generators when they were trained; the report shows it
NULL = {s.folder.partition("/")[0] for s in SUBSETS if DATASETS["miniature-null"][0] in s.worlds}  # its generators

IMAGES_README = """\
A scale model in the layout of GenImage. It is NOT GenImage: 32×32, gray, and its eight generators are small models of
eight kinds that stand in the places of GenImage's own.

nature: articles of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence) set into scenes with up to four small
things beside them, and photographed.
ai: drawn by the generators for the article alone, and put through the same camera. All files are PNGs of one kind.
"""


def unpack_models(folder: str | Path) -> Path:
    """Write the trained models into `folder` (captioner, diffusion, image-encoder, semantic-encoder); nothing is
    done where they stand already. Returns it.

    Raises ConfigError: `folder` holds something that this function has not written, or nothing ships here.
    """
    with as_file(files("sare_core.miniature") / "shipped" / "models") as shipped:
        _require(shipped)
        sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(shipped.rglob("*")) if file.is_file()]
        recipe = {"version": VERSION, "models": hashlib.sha256("".join(sums).encode()).hexdigest()}
        with built_once(Path(folder), recipe) as partial:
            if partial:
                _copy(shipped, partial)
    return Path(folder)


def unpack_images(folder: str | Path, full: bool = False, null: bool = False, archive: str | None = None) -> Path:
    """Write the shipped images into `folder`, in GenImage's layout. Returns it.

    full: all, not the demo's part. null: of the null world, whose generators learnt from captions that mention no
    extras, and were not guided; its photographs are the same. archive: path or URL of images.tar.xz, where it is not
    beside the sources.
    Raises ConfigError: as `unpack_models`; or the archive cannot be read, or is another one.
    """
    premise = _premise(null)
    recipe = {"version": VERSION, "images": _archive_digest(), "full": full, "null": null}
    recipe["premise"] = hashlib.sha256(premise).hexdigest()
    with built_once(Path(folder), recipe) as partial:
        if partial:
            taken: Counter[str] = Counter()
            for name, data in _files(read_archive(archive)):
                path = PurePosixPath(name)
                of_null, kind = path.parts[0] == "null", path.parent.name
                if kind == "unet" or (kind == "ai" and of_null != null):
                    continue
                path = PurePosixPath(*path.parts[of_null:])
                where = str(path.parent)
                if (full or taken[where] < _demo_limit(where)) and (not null or path.parts[0] in NULL):
                    taken[where] += 1
                    _write(partial / path, data)
            (partial / "README.txt").write_text(IMAGES_README, encoding="utf-8")
            (partial / PREMISE).write_bytes(premise)
            _oracle(partial).write_csv(partial / ORACLE)
    return Path(folder)


def unpack_null_diffusion(folder: str | Path, archive: str | None = None) -> Path:
    """Write the null world's reconstruction model into `folder`; autoencoder and text encoder are those of the other.

    Raises ConfigError: as `unpack_images`.
    """
    with as_file(files("sare_core.miniature") / "shipped" / "models" / "diffusion") as shipped:
        _require(shipped)
        recipe = {"version": VERSION, "images": _archive_digest(), "null": True}
        with built_once(Path(folder), recipe) as partial:
            if partial:
                _copy(shipped, partial)
                for name, data in _files(read_archive(archive)):
                    if name.startswith("null/unet/"):
                        _write(partial / "unet" / PurePosixPath(name).name, data)
    return Path(folder)


def _oracle(folder: Path) -> pl.DataFrame:
    """Captions that name the article that each image shows, or was drawn for: path and caption."""
    found = [(each.path, class_prompt(int(str(each.class_name).lstrip("n")))) for each in find(str(folder), [])]
    return pl.DataFrame(found, schema=["path", "caption"], orient="row").sort("path")


def _premise(null: bool) -> bytes:
    """The rows of the premise table that are about these images: of their world, as their generators were guided."""
    mentioned, guided = DATASETS["miniature-null" if null else "miniature"]
    table = pl.read_csv(io.BytesIO((files("sare_core.miniature") / "shipped" / PREMISE).read_bytes()))
    guidance = {subset.name: subset.guidance if guided else 1.0 for subset in SUBSETS}
    expected = pl.col("images").replace_strict(guidance, default=None, return_dtype=pl.Float64)
    own = pl.col("model") == "sdv1.4"  # the reconstruction model that ships
    rows = table.filter(own, pl.col("world") == mentioned, pl.col("guidance").eq_missing(expected))
    return rows.write_csv().encode()


def _archive_digest() -> str:
    return (files("sare_core.miniature") / "shipped" / "images.sha256").read_text().strip()


def read_archive(named: str | None) -> bytes:
    """The archive of images, of the digest that ships beside the models. Raises ConfigError: not to be had."""
    shipped = files("sare_core.miniature") / "shipped"
    file = shipped / "images.tar.xz"
    if named is None and not file.is_file():
        raise ConfigError(
            "the scale model's images are not in this installation: a clone of the sources holds them as "
            "sare_core/miniature/shipped/images.tar.xz. Name it, or its URL: sare mini --archive PATH."
        )
    try:
        if named is None:
            data = file.read_bytes()
        else:
            folder, _, name = named.rpartition("/")
            data = Store(folder or ("/" if named.startswith("/") else ".")).read(name)
    except (OSError, TransientError) as error:
        raise ConfigError(f"--archive {named}: cannot be read ({type(error).__name__}: {error}).") from error
    expected = _archive_digest()
    if hashlib.sha256(data).hexdigest() != expected:
        raise ConfigError(f"{named or file}: is not the archive of this version of sare (SHA-256 {expected[:12]}…).")
    return data


def _files(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as members:
        for member in members:
            data = members.extractfile(member) if member.isfile() else None
            if data is not None:
                yield member.name, data.read()


def _copy(source: Path, folder: Path) -> None:
    """One by one: shutil.copytree would wrap the error of a full disk."""
    for file in filter(Path.is_file, source.rglob("*")):
        _write(folder / file.relative_to(source), file.read_bytes())


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)  # as of now: an older index must not take it for its own


def _demo_limit(where: str) -> int:
    split = str(PurePosixPath(where).parent)
    return DEMO.get(split, DEMO.get(PurePosixPath(split).name, 0))


def _require(shipped: Path) -> None:
    if not shipped.exists():
        raise ConfigError(
            f"{shipped}: not there. The miniature ships with the sources; `make mini-world` trains it anew (hours)."
        )
