"""What the folders of a labelled tree mean, and when that is not certain: then the error names the cure."""

from collections.abc import Iterator
from typing import NamedTuple

from sare_core.errors import ConfigError
from sare_core.index import forensynths, genimage
from sare_core.index.listing import File, ancestry
from sare_core.index.words import CERTAIN, FAKE, LABELS, PAIRS, REAL, SPLITS, is_label_like, is_split_like, plain

Folders = list[tuple[str, list[File]]]  # relative to the root, with their files
NAMES = {REAL: "real", FAKE: "fake"}
_SHOWN = 8  # folders in a message
_AS_IS = "or use --layout unlabelled to score all of it without labels"
_PAIR = "Name the folders real and fake, as in train/real and train/fake/<generator>"


class Place(NamedTuple):
    """What the path of a folder says, by its first name that is a label."""

    parent: str  # what holds the label's folder
    word: str  # the label's folder as it is spelled
    label: int
    splits: tuple[str, ...]  # as spelled, above the label; a form has one at most
    subsets: tuple[str, ...]  # the other names above the label; a form has one at most
    below: tuple[str, ...]
    form: str

    @property
    def split(self) -> str:
        return SPLITS[plain(self.splits[0])] if self.splits else "test"


def place_of(folder: str) -> Place | None:
    """None where no name of the path is a label."""
    names = folder.split("/")
    at = next((position for position, name in enumerate(names) if plain(name) in LABELS), None)
    if at is None:
        return None
    above = names[:at]
    splits, subsets = (tuple(n for n in above if (plain(n) in SPLITS) is wanted) for wanted in (True, False))
    form = "/".join(["<split>" if name in splits else "<subset>" for name in above] + ["<label>"])
    label = LABELS[plain(names[at])]
    return Place("/".join(above), names[at], label, splits, subsets, tuple(names[at + 1 :]), form)


def own_name(root: str) -> str:
    return (ancestry(root) or ("",))[-1]


def _refuse(root: str, folders: Folders, why: str, cure: str) -> ConfigError:
    found = ", ".join(f"{folder or '.'} ({len(files):,} files)" for folder, files in folders[:_SHOWN])
    more = f" and {len(folders) - _SHOWN:,} more" if len(folders) > _SHOWN else ""
    return ConfigError(f"{root}: {why}. {cure}. Found: {found}{more}.")


def require_unlabelled(root: str, folders: Folders) -> None:
    """Raises ConfigError where names suggest labels or splits that are not understood."""
    names = sorted({name for folder, _ in folders for name in folder.split("/")})
    if like := [name for name in names if is_label_like(name)]:
        raise _refuse(root, folders, f"{like[0]!r} looks like a label, but is none that is known", f"{_PAIR}, {_AS_IS}")
    if pair := next((pair for pair in PAIRS if pair <= set(map(plain, names))), None):
        raise _refuse(
            root, folders, f"folders {' and '.join(sorted(pair))} do not say which is real", f"{_PAIR}, {_AS_IS}"
        )
    if (own := own_name(root)) and is_label_like(own):
        cure = f"Give the folder above it as --root, so that real and fake are both found, {_AS_IS}"
        raise _refuse(root, folders, f"the root itself is called {own!r}, and nothing in it has a label", cure)
    if like := [name for name in names if is_split_like(name)]:
        raise _refuse(root, folders, f"{like[0]!r} looks like a split, but there are no labels", f"{_PAIR}, {_AS_IS}")
    for position in range(3):
        parts = [folder.split("/") for folder, _ in folders]
        if {names[position] for names in parts if len(names) > position and plain(names[position])} == {"0", "1"}:
            raise _refuse(root, folders, "folders 0 and 1 do not say which is real", f"{_PAIR}, {_AS_IS}")


def require_understood(root: str, folders: Folders, places: dict[str, Place]) -> None:
    """Raises ConfigError unless every folder's meaning is certain."""
    own = own_name(root)
    if plain(own) not in SPLITS and is_split_like(own) and not plain(own).startswith("test"):
        why = f"the root is called {own!r}: training images, or not?"
        raise _refuse(root, folders, why, "Rename it to train or val, or to a name that holds no split")
    if doubt := next(_doubts(root, [folder for folder, _ in folders], places), None):
        raise _refuse(root, folders, *doubt)


def _doubts(root: str, folders: list[str], places: dict[str, Place]) -> Iterator[tuple[str, str]]:
    """What keeps a labelled tree from being understood, and the cure; the likeliest cause first."""
    words, labels = {plain(place.word) for place in places.values()}, {place.label for place in places.values()}
    if len(labels) == 1 and not words & CERTAIN:
        word = next(iter(places.values())).word
        yield f"{word!r} may be a label or a subject: the other label is not there", f"{_PAIR}, {_AS_IS}"
    for folder, place in places.items():
        yield from _doubts_of_one(root, folder, place)
    forms = {place.form: folder for folder, place in places.items()}
    if len(forms) > 1:
        (one, a), (other, b) = list(forms.items())[:2]
        yield f"folders of two forms: {one} ({a}) and {other} ({b})", "Bring all into one form, or index them apart"
    yield from _strays(folders, places)
    spelt: dict[tuple[str, int], str] = {}
    for place in places.values():
        if (first := spelt.setdefault((place.parent, place.label), place.word)) != place.word:
            yield f"{first!r} and {place.word!r} both mean {NAMES[place.label]}", "Put them into one folder"
    if not next(iter(places.values())).subsets:
        yield from _doubts_of_generators(places)
    for names in ({p.subsets for p in places.values()}, {p.below[:1] for p in places.values() if p.label == FAKE}):
        if len({"".join(name).lower() for name in names}) < len(names):
            listed = ", ".join(sorted("".join(name) for name in names))
            yield f"names that differ in case only, among {listed}", "Spell each subset in one way"


def _doubts_of_one(root: str, folder: str, place: Place) -> Iterator[tuple[str, str]]:
    word = plain(place.word)
    if word in ("ai", "nature") and genimage.place_of((*ancestry(root), *folder.split("/"))):
        yield f"{folder} is a folder of GenImage's", "Use --layout genimage"
    if word in ("0real", "1fake") and forensynths.knows({own_name(root), *place.subsets}):
        yield f"{folder} is a folder of ForenSynths'", "Use --layout forensynths (or genimage, for its generators)"
    if len(place.splits) > 1 or len(place.subsets) > 1:
        cure = "Give a --root further down, use --layout genimage or forensynths, or a table of paths"
        yield f"{folder}: too many folders above the label ({place.form})", f"{cure}, {_AS_IS}"
    if any(plain(name) in LABELS for name in place.below[:2]):
        yield f"{folder}: a label within a label", "Rename the one that is no label"
    if any(plain(name) in SPLITS for name in place.below[:2]):
        yield f"{folder}: a split below the label", "Put the split above it, as in train/real and train/fake"
    if place.subsets and is_split_like(place.subsets[0]):
        yield f"{folder}: {place.subsets[0]!r} looks like a split", "Call the splits train, val and test"
    if place.subsets and place.label == FAKE and place.below:
        cure = f"Move the files up into {place.parent}/{place.word}"
        if place.form.startswith("<subset>"):
            cure += f", or give --root {root.rstrip('/')}/{place.subsets[0]}"
        yield f"{folder}: a folder above the label and one below: either may be the generator", cure


def _strays(folders: list[str], places: dict[str, Place]) -> Iterator[tuple[str, str]]:
    """Folders without a label. Files right beside both labels' folders are loose ones, and no cause for doubt."""
    labels = {place.label for place in places.values()}
    for folder in folders:
        above = f"{folder}/".lstrip("/")
        if folder in places or {p.label for f, p in places.items() if f.startswith(above)} == {REAL, FAKE}:
            continue
        cure = "Move it into a folder with a label, or out of the root"
        if len(labels) == 1:
            place, other = next(iter(places.values())), NAMES[1 - min(labels)]
            cure = f"If it holds {other} images, move it into a folder {other}"
            cure += f"; if {place.word!r} is no label, rename it, {_AS_IS}"
        yield f"{folder or 'the root'} holds images without a label, beside folders that have one", cure


def _doubts_of_generators(places: dict[str, Place]) -> Iterator[tuple[str, str]]:
    """Whether the folders below fake/ are generators."""
    below = {label: [p.below[:1] for p in places.values() if p.label == label] for label in (REAL, FAKE)}
    if () in below[FAKE] and len(set(below[FAKE])) > 1:
        yield (
            "images right in the folder of fakes, beside folders of generators",
            "Give them a folder of their own there",
        )
    if both := sorted({name for (name,) in set(below[REAL]) - {()}} & {name for (name,) in set(below[FAKE]) - {()}}):
        cure = "If they are generators, turn them round: <generator>/real and <generator>/fake; if not, drop that level"
        yield f"the folders of reals and of fakes both hold a folder {both[0]!r}", cure
