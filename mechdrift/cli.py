"""The command `mechdrift`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mechdrift.errors import InputError

BAD, USAGE_ERROR = 1, 4  # as pytest's


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(prog="mechdrift", description="Beside `pytest --base X --post Y`.")
    commands = top.add_subparsers(dest="command", required=True)
    organisms = commands.add_parser(
        "organisms", help="list the checkpoints whose truth is known, or build one", description="List or build the organisms."
    )
    organisms.set_defaults(run=_organisms)
    organisms.add_argument(
        "--build", metavar="NAME", help="train an organism that is not shipped, from its recipe, on this machine"
    )
    organisms.add_argument("--out", metavar="DIR", help="with --build: write it there instead of into the cache")
    _add_cache(commands.add_parser("cache", help="show, verify or prune what runs keep", description="Recordings on disk."))
    return top


def _add_cache(cache: argparse.ArgumentParser) -> None:
    """`mechdrift cache info | verify | prune`."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--dir", metavar="DIR", help="the folder given to --mechdrift-cache; default: the user's cache folder")
    actions = cache.add_subparsers(dest="action", required=True)
    for name, run, what in (
        ("info", _info, "folder, recordings by checkpoint, sizes, ages"),
        ("verify", _verify, "read every recording; exit code 1 and names where one is bad"),
        ("prune", _prune, "remove what killed runs left, and what --older-than and --max-size say"),
    ):
        actions.add_parser(name, parents=[where], help=what, description=what).set_defaults(run=run)
    pruning = actions.choices["prune"]
    pruning.add_argument(
        "--older-than", metavar="DAYS", type=parse_amount, help="recordings and derived organisms not used for so long"
    )
    pruning.add_argument("--max-size", metavar="GB", type=parse_amount, help="the least recently used, until no more are left")


def parse_amount(text: str) -> float:
    """A number, 0 or more."""
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise InputError(f"{text!r}", "a number, 0 or more", "see mechdrift cache prune --help")
    return amount


def _organisms(options: argparse.Namespace) -> int:
    from mechdrift.organisms import build, listing

    if options.build:
        build(options.build, options.out)
    else:
        print(listing())
    return 0


def _folder(options: argparse.Namespace) -> Path:
    """The cache that is meant; the default one is made, so that an unused one is empty and no error."""
    from mechdrift.engine.store import default_folder

    if options.dir is not None:
        return Path(options.dir).expanduser().absolute()
    folder = default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _info(options: argparse.Namespace) -> int:
    from mechdrift.cache import info

    print(info(_folder(options)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from mechdrift.cache import verify

    bad, read = verify(_folder(options))
    for line in bad:
        print(line)
    print(f"{read} files read, {len(bad)} bad" + ("; a run that asks for a bad one records it again" if bad else ""))
    return BAD if bad else 0


def _prune(options: argparse.Namespace) -> int:
    from mechdrift.cache import prune

    print(prune(_folder(options), options.older_than, options.max_size))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, 1 for a bad cache, or 4 for input that cannot be used, with one line."""
    try:
        options = parser().parse_args(arguments)
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"mechdrift: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # `mechdrift organisms | head`: what is left to say has no reader, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD
