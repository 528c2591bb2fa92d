"""Text that comes from files and their names, made fit to be shown: on one line, so that it cannot pass for another."""

from sare_core.engine.terminal import printable


def shown(text: str) -> str:
    r"""A path or message whole: hidden characters and bytes that are no UTF-8 are written out, a line break as \n."""
    return printable(text).replace("\n", "\\n")


def cut(text: str, longest: int) -> str:
    """At most so many characters, each run of white space as one space."""
    short = " ".join(text[: 2 * longest].split())
    return printable(short[:longest]) + "…" * (len(text) > 2 * longest or len(short) > longest)
