"""What a detector needs of an image, read from where it lies: the shards of its reconstructions, or its source file."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from sare_core.engine.shardfiles import TarReader
from sare_core.errors import ConfigError, NotReached, TransientError
from sare_core.images.png import decode_png
from sare_core.images.sources import read_source, view_image

if TYPE_CHECKING:
    from sare_core.detectors.base import Detector
    from sare_core.detectors.transforms import Parts


def map_role(name: str) -> str:
    """The role that the reconstructions with a map play among the folders that a detector is made from."""
    return "reconstructions" if name == "sare" else f"reconstructions.{name}"


def needs_to_score(kind: "type[Detector]") -> frozenset[str]:
    """What is read of an image to score it; for training it is `kind.needs`."""
    return frozenset({"image"}) if kind.scored_alone else kind.needs


def maps_to_score(kind: "type[Detector]") -> dict[str, dict[str, Any]]:
    """The maps that are read to score an image; for training these are `kind.maps`."""
    return {} if kind.scored_alone else kind.maps


def read_parts(
    kind: "type[Detector]",
    readers: Mapping[str, TarReader],
    root: str,
    row: dict[str, Any],
    view: str,
    scoring: bool = False,
) -> "Parts":
    """The parts that a class of detectors needs of a row of the index: RGB pictures, and the caption.

    readers: of the row's shard of each map's reconstructions, by `map_role`.
    Raises NotReached when a shard lacks the image, ImageError or TransientError when it cannot be read, ConfigError
    when x̂ is needed and was not kept.
    """
    key, parts = row["image_id"], dict[str, Any]()
    needs, maps = (needs_to_score(kind), maps_to_score(kind)) if scoring else (kind.needs, kind.maps)
    shards = {name: readers[map_role(name)] for name in maps}
    if any("sare.png" not in reader.fields(key) for reader in shards.values()):
        raise NotReached("it has no SARE map (sare status shows why)")
    if "image" in needs:
        parts["image"] = read_image(next(iter(shards.values()), None), root, row, view)
    try:
        if "sare" in needs:
            parts |= {name: _picture(reader, key, "sare.png") for name, reader in shards.items()}
        for first in list(shards.values())[:1]:
            if "reconstruction" in needs:
                if "reconstruction.png" not in first.fields(key):
                    raise ConfigError(
                        f"{kind.__name__} reads reconstructions, which the shards do not hold. Set "
                        "reconstruct.keep_reconstruction=true, run `sare reconstruct`, then this stage again."
                    )
                parts["reconstruction"] = _picture(first, key, "reconstruction.png")
            if "caption" in needs:
                parts["caption"] = json.loads(first.read(key, "json"))["caption"]
    except OSError as error:
        raise TransientError(f"shard {row['shard']} of the reconstructions: reading failed: {error}") from error
    return parts


def read_image(reader: TarReader | None, root: str, row: dict[str, Any], view: str) -> Image.Image:
    """x of a row of the index, viewed, at its own size: from its shard where that holds it, else from the dataset.

    Raises ImageError or TransientError when it cannot be read.
    """
    try:
        source = image_file(reader, root, row)
    except OSError as error:
        raise TransientError(f"shard {row['shard']} of the reconstructions: reading failed: {error}") from error
    return view_image(source, row, view)


def image_file(reader: TarReader | None, root: str, row: dict[str, Any]) -> bytes:
    """The bytes of an image's file: from its shard where that holds it, recoded or not, else from the dataset."""
    key, extension = row["image_id"], row["extension"]
    return reader.read(key, extension) if reader and extension in reader.fields(key) else read_source(root, row)


def _picture(reader: TarReader, key: str, field: str) -> Image.Image:
    return decode_png(reader.read(key, field))
