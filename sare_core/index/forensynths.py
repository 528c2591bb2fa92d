"""ForenSynths, the data of CNNDetection (Wang et al., CVPR 2020): `<name>/[<class>/]{0_real,1_fake}/<files>`.

All of it is test data, except what lies under `train/` and `val/`, where ProGAN's folders of classes lie without
ProGAN's name. Another folder with 0_real and 1_fake inside is a subset of its own, named as it is.
"""

from collections.abc import Iterator

from sare_core.errors import ConfigError
from sare_core.index.listing import Found, Problem, ancestry, walk
from sare_core.index.words import SPLITS, is_split_like, plain

_NAMED = (
    *("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan"),
    *("crn", "imle", "san", "deepfake", "whichfaceisreal"),
)
_SUBSETS = {name: name for name in _NAMED} | {"seeingdark": "sitd"}
_LABELS = {"0_real": 0, "1_fake": 1}
_PROGAN_CLASSES = {
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
}


def find(root: str, problems: list[Problem]) -> Iterator[Found]:
    """Each file in a 0_real or 1_fake folder, with its class folder's name as class.

    Other folders are reported. Raises ConfigError when there is no such folder.
    """
    above = _known_tail(ancestry(root))
    passed_over: list[str] = []
    empty = True
    for folder, files in walk(root, problems):
        place = _place(above + folder.split("/") if folder else above, ancestry(root)[-1])
        if place is None:
            passed_over.append(folder or ".")
            problems.append(Problem(folder, f"{len(files):,} files not read: not in a 0_real or 1_fake folder"))
            continue
        empty = False
        for file in files:
            yield Found(f"{folder}/{file.name}".lstrip("/"), file.bytes, file.mtime_ns, *place)
    if empty:
        raise ConfigError(
            f"{root}: no ForenSynths here. Expected folders such as progan/airplane/0_real and biggan/1_fake; "
            f"found files in: {', '.join(passed_over[:10]) or 'no folder at all'}. "
            "Give the folder that holds the unpacked generators, or use --layout folder for your own images."
        )


def knows(names: set[str]) -> bool:
    """Whether one of these is a folder's name in ForenSynths: a generator, or a class of ProGAN's."""
    return any(name.lower() in _SUBSETS or name.lower() in _PROGAN_CLASSES for name in names)


def _known_tail(names: tuple[str, ...]) -> list[str]:
    """The root may itself be a generator's folder, or its train or val folder: then its name tells something."""
    known: list[str] = []
    for name in reversed(names):
        if name.lower() not in _SUBSETS and plain(name) not in SPLITS:
            break
        known.insert(0, name)
    return known


def _place(names: list[str], root: str) -> tuple[str, str, int, str | None] | None:
    """Subset, split, label and class from the names of the folders; null if the last is not 0_real or 1_fake."""
    if not names or names[-1] not in _LABELS:
        return None
    label, names = _LABELS[names[-1]], names[:-1] or [root]
    split = "test"
    for position, name in enumerate(names[:2]):
        # ProGAN has a class called "train".
        if plain(name) in SPLITS and not (len(names) == 2 and names[0].lower() == "progan"):
            split, names = SPLITS[plain(name)], names[:position] + names[position + 1 :] or [root]
            break
    named = next((position for position, name in enumerate(names) if name.lower() in _SUBSETS), None)
    odd = [name for name in names[:named] if "train" in name.lower()] if named is not None else []
    if named is None and is_split_like(names[0]) and names[0] not in _PROGAN_CLASSES:
        odd = names[:1]
    if odd:
        raise ConfigError(
            f"{'/'.join(names)}: is {odd[0]!r} a split or a generator? Rename it to train, val or test, "
            "or to the generator's name."
        )
    if named is not None:
        subset, rest = _SUBSETS[names[named].lower()], names[named + 1 :]
    elif split != "test" and names[0] in _PROGAN_CLASSES and len(names) == 1:
        subset, rest = "progan", names
    else:
        subset, rest = names[0], names[1:]
    return (subset, split, label, rest[0] if rest else None) if len(rest) <= 1 else None
