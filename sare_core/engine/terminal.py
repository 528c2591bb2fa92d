"""What is printed: text as it is, with nothing in it that could steer a terminal or be taken for markup."""

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

# Control characters, formatting characters (bidirectional overrides among them), lone surrogates, line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT = "\n\t\u200c\u200d"  # the last two join letters in several scripts, and emoji


def printable(text: str) -> str:
    r"""The text with hidden characters written out: an escape character as \x1b, a right-to-left override as \u202e.

    Newlines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN and character not in _KEPT
    return character.encode("unicode_escape").decode() if hidden else character


class PlainConsole(Console):
    """A console for text that comes from users: names, paths, error messages.

    Each string that it prints, in tables too, is made `printable`; square brackets and colons mean themselves. For
    style, give `style=`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        return super().render_str(printable(text), *args, **options)


console = PlainConsole()  # takes names and paths of any kind as they are; give style= where there is one
