"""What is printed of names that users, or somebody else, chose."""

import io

import pytest
from rich.table import Table

from sare_core.engine.terminal import PlainConsole, printable
from sare_core.errors import ConfigError
from stages.options import exit_codes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Übung 50 % [x] :smile: \\n", "Übung 50 % [x] :smile: \\n"),
        ("two\nlines\tof", "two\nlines\tof"),
        ("\x1b[31m\r\x07\x9b\x00", r"\x1b[31m\r\x07\x9b\x00"),
        ("a\u202eb\u2066\u200e\ufeff\u2028", r"a\u202eb\u2066\u200e\ufeff\u2028"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("👩\u200d🔬 नि\u200dक", "👩\u200d🔬 नि\u200dक"),
    ],
)
def test_hidden_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_console_takes_text_as_it_is_in_tables_and_rules_too() -> None:
    name = "x[/nope][red]:smile:\x1b[2J"
    console = PlainConsole(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    console.print(name, style="bold")
    console.print(table)
    console.rule(name)
    said = console.file.getvalue()
    assert said.count(r"x[/nope][red]:smile:\x1b[2J") == 5
    assert "\x1b[2J" not in said


def test_an_error_is_text_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, exit_codes():
        raise ConfigError("w[/b]\x1b[31m: no such folder" + " or file" * 20)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: w[/b]\\x1b[31m: no such folder" + " or file" * 20 + "\n"
