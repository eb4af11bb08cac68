"""Options on the command line, and README.md's table of them: `python -m mechdrift.settings.command_line README.md` writes it."""

from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest

from mechdrift.settings.declared import OPTIONS
from mechdrift.settings.option import PREFIX, Option, flag_of

LIST = Option(
    False,
    "list findings with their roles and limits, and stop",
    readme="what can be measured, with limits",
    changes_numbers=False,
)
"""Of no run."""
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"


def add_options(parser: pytest.Parser) -> None:
    """Add the option group."""
    group = parser.getgroup("mechdrift", "mechdrift: compare two checkpoints from the inside")
    for name, one in [*OPTIONS.items(), ("list", LIST)]:
        settings: dict[str, Any] = {"help": one.help, "dest": dest_of(name)}
        if one.metavar is None:
            settings |= {"action": "store_true", "default": one.default}
        else:
            settings |= {"metavar": one.metavar, "default": None if one.repeatable else one.default}
            settings |= {"type": one.parse} if one.parse else {}
            settings |= {"action": "append"} if one.repeatable else {}
        flag = long_of(name, one)
        try:
            group.addoption(*filter(None, (one.short, flag)), **settings)
        except (ValueError, ArgumentError):  # another plugin has taken the short form
            if not one.short:
                raise
            settings["help"] += f" ({one.short} is another plugin's here)"
            group.addoption(flag, **settings)


def long_of(name: str, one: Option) -> str:
    """`--mechdrift-post` of `posts`, whose short form is `--post`; `--mechdrift-dtype` of `dtype`."""
    return PREFIX + one.short.removeprefix("--") if one.short else flag_of(name)


def dest_of(name: str) -> str:
    """Where pytest keeps an option's value."""
    return f"mechdrift_{name}"


def readme_table() -> str:
    """The table of README.md, in Markdown."""
    lines = ["| option | meaning | default |", "|---|---|---|"]
    for name, one in [*OPTIONS.items(), ("list", LIST)]:
        words = f"{one.short or flag_of(name)} {one.metavar or ''}".strip().replace("|", "\\|")
        lines.append(f"| `{words}` | {one.readme or one.help} | {one.readme_default} |".replace("|  |", "| |"))
    return "\n".join(lines)


def with_table(page: str) -> str:
    """A page with the table between its marks. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n\n{readme_table()}\n\n{END}{after}"


if __name__ == "__main__":
    import sys

    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
