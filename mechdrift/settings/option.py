"""What there is to say of a command-line option; `declared.py` says it of each, once."""

from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import Any

PREFIX = "--mechdrift-"


@dataclass(frozen=True)
class Option:
    """One option, by which everything else about it is derived: parsing, help, README, header, record, the command again."""

    default: Any
    help: str
    """For `pytest --help`."""
    metavar: str | None = None
    """None: a flag."""
    parse: Callable[[str], Any] | None = None
    """From text; raises ArgumentTypeError."""
    repeatable: bool = False
    """Whether it may be given several times; its value is then a tuple."""
    short: str = ""
    """Another form of it, as `--base`."""
    changes_numbers: bool = True
    """Whether it may change an estimate: then two records that differ in it are not of one measurement."""
    again: bool = True
    """Whether it belongs into the command that measures one row again."""
    readme: str = ""
    """Its meaning in Markdown, for README.md; empty: as in the help."""
    readme_default: str = ""
    """What README.md has for its default."""


def option(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:  # noqa: A002 - as in argparse
    """A field of `Settings` that is an option."""
    metadata = {"option": Option(default, help, metavar, **more)}
    return field(default_factory=lambda: default, metadata=metadata)


def option_of(one: "Field[Any]") -> Option:
    """The option of a field."""
    found: Option = one.metadata["option"]
    return found


def flag_of(name: str) -> str:
    """`--mechdrift-fail-on` of `fail_on`."""
    return PREFIX + name.replace("_", "-")
