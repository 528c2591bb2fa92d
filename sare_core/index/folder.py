"""Your own images in folders. A layout is understood in full or refused with the cure, never read in part.

    [<split>/]real/…, [<split>/]fake/[<generator>/]…    one set of reals for all generators
    [<split>/]<subset>/{real,fake}/…                    reals for each; <subset>/<split>/{real,fake} too
    any other folder                                    unlabelled: scores only

`words` holds what a split and a label may be called. What has no split is test data. With one generator the reals
belong to its subset; with several they are a subset of their own, "real", that the evaluation holds against each.
"""

from collections.abc import Iterable, Iterator

from sare_core.index.folder_checks import NAMES, own_name, place_of, require_understood, require_unlabelled
from sare_core.index.listing import File, Found, Problem, is_table, walk
from sare_core.index.table import find_rows
from sare_core.index.words import FAKE, SPLITS, plain

UNNAMED = "images"  # the subset of what is told no subset


def find(root: str, problems: list[Problem]) -> Iterator[Found]:
    """Each file of a labelled or unlabelled folder, or each row of a table.

    Raises ConfigError: no such root; folders of which it is not certain what they mean; a table that makes no sense.
    """
    if is_table(root):
        yield from find_rows(root, problems, UNNAMED)
        return
    folders = list(walk(root, problems))
    places = {folder: place for folder, _ in folders if (place := place_of(folder))}
    if not places:
        require_unlabelled(root, folders)
        yield from _unlabelled(folders)
        return
    require_understood(root, folders, places)
    generators = {place.below[0] for place in places.values() if place.label == FAKE and place.below}
    fakes = any(place.label == FAKE for place in places.values())
    shared = "real" if len(generators) > 1 or not fakes else generators.pop() if generators else UNNAMED
    above = SPLITS.get(plain(own_name(root)), "test")  # the root may itself be a split
    for folder, files in folders:
        place = places.get(folder)
        if place is None:
            problems.append(Problem(folder, f"{len(files):,} files not read: neither in real/ nor in fake/"))
            continue
        generator = place.below[0] if place.label == FAKE and place.below and not place.subsets else shared
        split = place.split if place.splits else above
        for file in files:
            subset = place.subsets[0] if place.subsets else generator
            yield Found(_path(folder, file), file.bytes, file.mtime_ns, subset, split, place.label, None)
    labels = {place.label for place in places.values()}
    problems += [Problem("", f"no {name} images") for label, name in NAMES.items() if label not in labels]


def find_unlabelled(root: str, problems: list[Problem]) -> Iterator[Found]:
    """Each file below a folder, whatever its folders are called. Raises ConfigError: no such root."""
    yield from _unlabelled(walk(root, problems))


def _unlabelled(folders: Iterable[tuple[str, list[File]]]) -> Iterator[Found]:
    for folder, files in folders:
        for file in files:
            yield Found(_path(folder, file), file.bytes, file.mtime_ns, UNNAMED, "test", None, None)


def _path(folder: str, file: File) -> str:
    return f"{folder}/{file.name}".lstrip("/")
