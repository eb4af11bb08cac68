"""The command `mechdrift`."""

import argparse
import sys
from collections.abc import Sequence

from mechdrift.errors import InputError

USAGE_ERROR = 4  # as pytest's


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(prog="mechdrift", description="Beside `pytest --base X --post Y`.")
    commands = top.add_subparsers(dest="command", required=True)
    organisms = commands.add_parser(
        "organisms", help="list the checkpoints whose truth is known, or build one", description="List or build the organisms."
    )
    organisms.add_argument(
        "--build", metavar="NAME", help="train an organism that is not shipped, from its recipe, on this machine"
    )
    organisms.add_argument("--out", metavar="DIR", help="with --build: write it there instead of into the cache")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, or 4 for input that cannot be used, with one line that says why."""
    options = parser().parse_args(arguments)
    try:
        from mechdrift.organisms import build, listing

        if options.build:
            build(options.build, options.out)
        else:
            print(listing())
    except InputError as error:
        print(f"mechdrift: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0
