"""Lists of views, as `sare evaluate --views` takes them: how strong a change may be before a detector fails."""

from sare_core.errors import ConfigError
from sare_core.images.views import OPERATIONS, parse_view

# Places of the grids that peers publish (CNNDetection, UnivFD, SIDBench, GenImage, AIGIBench), put together.
USUAL: dict[str, tuple[float, ...]] = {
    "jpeg": (95, 90, 80, 70, 60, 50, 40, 30),
    "webp": (90, 75, 50),
    "blur": (0.5, 1, 2, 3, 4),
    "resize": (0.25, 0.5, 0.75, 1.25, 1.5, 2),
    "crop": (0.9, 0.75, 0.5),
    "noise": (2, 5, 10),
}


def expand_views(text: str) -> list[str]:
    """`raw,jpeg:95..50,blur` to views, each once: with `..` both ends and the usual places between, of a bare name all.

    `usual` stands for all of USUAL and `square`. Raises ConfigError: not a view.
    """
    found = list[str]()
    for part in (part.strip() for part in text.split(",")):
        found += (
            ["square", *(view for name in USUAL for view in _places(name, USUAL[name]))]
            if part == "usual"
            else (_expand(part))
        )
    for view in found:
        parse_view(view)
    return list(dict.fromkeys(found))


def step_and_number(view: str) -> tuple[str, float] | None:
    """The one step of a view and its number; None of chains, and of steps without a number."""
    step, *further = parse_view(view)
    return None if further or OPERATIONS[step.name].number is None else (step.name, step.value)


def _expand(part: str) -> list[str]:
    if part in USUAL:
        return _places(part, USUAL[part])
    name, _, ends = part.rpartition(":")
    first, dots, last = ends.partition("..")
    if not dots:
        parsed = step_and_number(part)  # so that blur:1.0 is blur:1
        return [part] if parsed is None else _places(parsed[0], [parsed[1]])
    try:
        start, stop = float(first), float(last)
    except ValueError:
        raise ConfigError(f"--views {part}: write a range as jpeg:95..50.") from None
    between = [place for place in USUAL.get(name.rpartition("+")[2], ()) if min(start, stop) < place < max(start, stop)]
    return _places(name, [start, *sorted(between, reverse=start > stop), stop])


def _places(name: str, numbers: "list[float] | tuple[float, ...]") -> list[str]:
    return [f"{name}:{number:g}" for number in numbers]
