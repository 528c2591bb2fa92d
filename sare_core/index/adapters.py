"""The layouts that `sare index` knows. A new one is a file with a `find` and a line here."""

from collections.abc import Callable, Iterator

from sare_core.errors import ConfigError
from sare_core.index import folder, forensynths, genimage
from sare_core.index.listing import Found, Problem

Find = Callable[[str, list[Problem]], Iterator[Found]]

_ADAPTERS: dict[str, Find] = {
    "genimage": genimage.find,
    "forensynths": forensynths.find,
    "folder": folder.find,
    "unlabelled": folder.find_unlabelled,
}


def layouts() -> list[str]:
    """Names of the known layouts."""
    return sorted(_ADAPTERS)


def find(layout: str, root: str, problems: list[Problem]) -> Iterator[Found]:
    """The files of a dataset, in sorted order of their folders; what was passed over is added to `problems`.

    Raises ConfigError: no such layout or root, nothing there that has this layout.
    """
    if layout not in _ADAPTERS:
        raise ConfigError(f"no layout {layout!r}. The layouts are {', '.join(layouts())}.")
    return _ADAPTERS[layout](root, problems)
