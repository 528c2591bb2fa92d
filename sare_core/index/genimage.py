"""GenImage (Zhu et al., NeurIPS 2023), in each of the ways in which its archives come unpacked.

    <outer>/<inner>/<split>/<class>   Midjourney/imagenet_midjourney/train/ai        unpacked with its folder
    <outer>/<split>/<class>           Stable Diffusion V1.4/val/nature               as in its README
    <inner>/<split>/<class>           imagenet_ai_0419_sdv4/train/nature             unpacked alone
    <name>/[<split>/]<class>          ADM/1_fake, wukong/test/0_real                 converted, as AIDE and SAFE take it

The root may be the folder of all of them, of one subset, of a split or of a class. Case does not matter. The release
has no third split: its `val` is the test set, and is called so here.
"""

import re
from collections.abc import Iterator

from sare_core.errors import ConfigError
from sare_core.index.listing import Found, Problem, ancestry, walk
from sare_core.index.words import SPLITS, plain

# Names without case, dashes, dots, spaces and underscores.
_NAMES = {
    "midjourney": ("midjourney", "imagenetmidjourney"),
    "sdv1.4": ("stablediffusionv14", "imagenetai0419sdv4", "sdv14", "sd14"),
    "sdv1.5": ("stablediffusionv15", "imagenetai0424sdv5", "sdv15", "sd15"),
    "adm": ("adm", "imagenetai0508adm"),
    "glide": ("glide", "imagenetglide"),
    "wukong": ("wukong", "imagenetai0424wukong"),
    "vqdm": ("vqdm", "imagenetai0419vqdm"),
    "biggan": ("biggan", "imagenetai0419biggan"),
}
_SUBSETS = {name: subset for subset, names in _NAMES.items() for name in names}
_SPLITS = {"train": "train", "val": "test", "test": "test"}
_LABELS = {"nature": 0, "0_real": 0, "ai": 1, "1_fake": 1}
_DEPTH = 4  # outer, inner, split, class


def find(root: str, problems: list[Problem]) -> Iterator[Found]:
    """Each file below a class folder, with the class index (or WNID) that its name tells.

    Folders that are not GenImage's are reported. Raises ConfigError when there is no folder of GenImage's.
    """
    above = ancestry(root)[-_DEPTH:]
    passed_over: list[str] = []
    held_out: set[tuple[str, str]] = set()
    for folder, files in walk(root, problems):
        names = above + tuple(folder.split("/")) if folder else above
        place = place_of(names)
        if place is None:
            passed_over.append(folder or ".")
            problems.append(Problem(folder, f"{len(files):,} files not read: not a folder of GenImage's layout"))
            continue
        subset, released, label = place
        held_out.add((subset, released))
        for file in files:
            path = f"{folder}/{file.name}".lstrip("/")
            yield Found(path, file.bytes, file.mtime_ns, subset, _SPLITS[released], label, class_of(file.name, label))
    if not held_out:
        raise ConfigError(
            f"{root}: no GenImage here. Expected folders such as Midjourney/imagenet_midjourney/train/ai (and nature), "
            f"or Midjourney/0_real and 1_fake; found files in: {', '.join(passed_over[:10]) or 'no folder at all'}. "
            "Give the folder that holds the unpacked subsets, or use --layout folder for your own images."
        )
    for subset, released in sorted(held_out):
        if released == "val" and (subset, "test") in held_out:
            problems.append(Problem("", f"{subset} has both val and test folders: both are its test split"))


def class_of(name: str, label: int) -> str | None:
    """ImageNet's 0-based class index for a fake ("281" for 281_sdv4_00094.png), the WNID for a real of its train split.

    The index is the first token of a name, the fifth of GLIDE's and VQDM's. Null where the name does not tell: numbers
    of ImageNet's val split are in no order.
    """
    if label == 0:
        wnid = re.match(r"n\d{8}(?=_)", name)
        return wnid[0] if wnid else None
    tokens = name.split("_")
    position = 4 if tokens[0].upper() in {"GLIDE", "VQDM"} else 0
    if len(tokens) > position + 1 and re.fullmatch(r"\d{1,3}", tokens[position]):
        return str(int(tokens[position]))
    return None


def place_of(names: tuple[str, ...]) -> tuple[str, str, int] | None:
    """Subset, the split's name as released, and label, from the names of the folders; null if not GenImage's."""
    *names_above, last = (name.lower() for name in names)
    if last not in _LABELS:
        return None
    released, strange = None, ""
    for name in reversed(names_above[-3:]):  # from the class folder upwards
        if released is None and plain(name) in SPLITS:
            released = SPLITS[plain(name)]
        elif subset := _SUBSETS.get(re.sub(r"[^a-z0-9]", "", name)):
            if strange:
                raise ConfigError(
                    f"{'/'.join(names)}: {strange!r} is no split of GenImage's layout. Rename it to train, val or "
                    "test, or move it away."
                )
            return subset, released or _split_above(names_above, name) or "test", _LABELS[last]
        else:
            strange = strange or name
    return None


def _split_above(names: list[str], subset: str) -> str | None:
    """Some converted copies have the split above the subset: train/ADM/1_fake."""
    above = names[: names.index(subset)]
    return SPLITS.get(plain(above[-1])) if above else None
