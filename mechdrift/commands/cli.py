"""The command `mechdrift`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NoReturn

from mechdrift.errors import InputError, Unmeasurable

BAD, USAGE_ERROR = 1, 4  # as pytest's
LACKING = 7  # as of a run whose gates could not be measured
UNITS = 40  # of a kind on a map: two minutes on one core for a model of 0.1B weights


class Parser(argparse.ArgumentParser):
    """What cannot be parsed is one line and exit code 4, as all that cannot be used."""

    def error(self, message: str) -> NoReturn:
        """Say so and leave."""
        self.exit(USAGE_ERROR, f"mechdrift: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = Parser(prog="mechdrift", description="Beside `pytest --base X --post Y`.")
    commands = top.add_subparsers(dest="command", required=True)
    organisms = commands.add_parser(
        "organisms", help="list the checkpoints whose truth is known, or build one", description="List or build the organisms."
    )
    organisms.set_defaults(run=_organisms)
    organisms.add_argument(
        "--build", metavar="NAME", help="train an organism that is not shipped, from its recipe, on this machine"
    )
    organisms.add_argument("--out", metavar="DIR", help="with --build: write it there instead of into the cache")
    explain = commands.add_parser("explain", help="say what a row claims, how it is measured and by what it is judged")
    explain.set_defaults(run=_explain)
    explain.add_argument("row", metavar="ROW", help="a finding, or a row as the table names it: truth.clean_gap")
    _add_inspect(commands.add_parser("inspect", help="say what can be measured of a model", description=_inspect.__doc__))
    _add_map(commands.add_parser("map", help="show where a checkpoint keeps what it knows", description=_map.__doc__))
    _add_bake(commands.add_parser("bake", help="write a checkpoint without one direction", description=_bake.__doc__))
    _add_calibrate(commands.add_parser("calibrate", help="make limits from null runs", description=_calibrate.__doc__))
    compare = commands.add_parser("compare", help="show two records beside each other", description=_compare.__doc__)
    compare.set_defaults(run=_compare)
    compare.add_argument(
        "first", metavar="A.json", type=Path, help="a record (--mechdrift-record) or a baseline (--mechdrift-save)"
    )
    compare.add_argument("second", metavar="B.json", type=Path, help="another")
    _add_bisect(commands.add_parser("bisect", help="find the checkpoint at which a row drifted", description=_bisect.__doc__))
    _add_report(commands.add_parser("report", help="show records as HTML, markdown, JUnit", description=_report.__doc__))
    replies = commands.add_parser("replies", help="show how often replies are read right", description=_replies.__doc__)
    replies.set_defaults(run=_replies)
    replies.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="your own labelled replies, a table of reply and outcome; default: the shipped sets",
    )
    _add_cache(commands.add_parser("cache", help="show, verify or prune what runs keep", description="Recordings on disk."))
    return top


def _add_map(command: argparse.ArgumentParser) -> None:
    """`mechdrift map SPEC`; what pytest has too has pytest's name and default."""
    from mechdrift.prompts.pairs import FORMS
    from mechdrift.settings import OPTIONS
    from mechdrift.settings.values import parse_seed

    command.set_defaults(run=_map)
    command.add_argument("spec", metavar="SPEC", help="the checkpoint, as after pytest's --base")
    command.add_argument("--form", choices=FORMS, default=FORMS[0], help=f"how pairs ask; default: {FORMS[0]}")
    command.add_argument("--kind", metavar="NAME", nargs="+", action="extend", help="fact tables; default: all that it knows")
    command.add_argument("--units", metavar="N", type=parse_seed, default=UNITS, help=f"of each kind, at most; default: {UNITS}")
    command.add_argument("--out", metavar="FILE.safetensors", type=Path, help="write the numbers of the map there")
    for name in ("seed", "device", "dtype", "batch", "cache"):
        one = OPTIONS[name]
        command.add_argument(
            f"--{name}",
            f"--mechdrift-{name}",
            dest=name,
            metavar=one.metavar,
            type=one.parse or str,
            default=one.default,
            help=one.help,
        )


def _add_inspect(command: argparse.ArgumentParser) -> None:
    """`mechdrift inspect SPEC`; device and dtype have pytest's names and defaults."""
    from mechdrift.settings import OPTIONS

    command.set_defaults(run=_inspect)
    command.add_argument("spec", metavar="SPEC", help="the checkpoint, as after pytest's --base")
    for name in ("device", "dtype"):
        one = OPTIONS[name]
        flags = (f"--{name}", f"--mechdrift-{name}")
        command.add_argument(*flags, dest=name, metavar=one.metavar, type=one.parse or str, default=one.default, help=one.help)


def _add_bake(command: argparse.ArgumentParser) -> None:
    """`mechdrift bake SPEC --direction FILE --out DIR`."""
    from mechdrift.settings.values import parse_dtype

    command.set_defaults(run=_bake)
    command.add_argument("spec", metavar="SPEC", help="the checkpoint, as after pytest's --base")
    command.add_argument(
        "--direction",
        metavar="FILE.safetensors",
        type=Path,
        required=True,
        help="holds a tensor `direction` [d_model], of any length but zero",
    )
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="where it goes: an empty folder, or a new one")
    how = "auto (as its weights are stored), float32, bfloat16 or float16; default: auto"
    command.add_argument("--dtype", "--mechdrift-dtype", metavar="DTYPE", type=parse_dtype, default="auto", help=how)


_OPTION = "a further argument of pytest, one each, as --option=--mechdrift-tier=smoke; repeatable"


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    """`mechdrift calibrate --base X --runs DIR`."""
    from mechdrift.commands.profile_file import parse_target
    from mechdrift.settings import OPTIONS
    from mechdrift.settings.values import parse_seed
    from mechdrift.verdict.calibrated import MARGIN

    command.set_defaults(run=_calibrate)
    command.add_argument("--base", metavar="SPEC", required=True, help="the model, as after pytest's --base")
    command.add_argument(
        "--rerun", metavar="SPEC", action="append", default=[], help="the same, trained again with another seed; repeatable"
    )
    command.add_argument("--seeds", metavar="N", type=parse_seed, default=1, help="of splits and of jittered copies; default: 1")
    command.add_argument(
        "--runs", metavar="DIR", type=Path, required=True, help="where records are kept; a killed series goes on"
    )
    usual = OPTIONS["profile"].default
    command.add_argument("--profile", "--mechdrift-profile", metavar="NAME", default=usual, help=f"whose rows; default: {usual}")
    command.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="make limits for this row, finding or family; repeatable"
    )
    command.add_argument(
        "--write", metavar="FILE.toml|pyproject.toml:NAME", type=parse_target, help="write a profile with the limits"
    )
    command.add_argument("--force", action="store_true", help="replace the limits of a profile that is there")
    command.add_argument(
        "--margin", metavar="SHARE", type=parse_amount, default=MARGIN, help=f"beyond the worst null run; default: {MARGIN}"
    )
    command.add_argument("options", metavar="-- OPTION", nargs="*", help="further arguments of pytest, after --")


def _add_bisect(command: argparse.ArgumentParser) -> None:
    """`mechdrift bisect ROW --base X --runs DIR CHECKPOINT...`."""
    command.set_defaults(run=_bisect)
    command.add_argument("row", metavar="ROW", help="label of a row, as a run's table has it: truth.clean_gap")
    command.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="of one training run, in its order")
    command.add_argument("--base", metavar="SPEC", required=True, help="what all are compared with, as after pytest's --base")
    command.add_argument(
        "--runs", metavar="DIR", type=Path, required=True, help="where records are kept; a killed search goes on"
    )
    command.add_argument("--by-step", action="store_true", help="order checkpoints by the numbers at the ends of their names")
    command.add_argument("--all", dest="everything", action="store_true", help="measure all, where a row may go back and forth")
    command.add_argument("--option", dest="options", metavar="OPTION", action="append", default=[], help=_OPTION)


def _add_report(command: argparse.ArgumentParser) -> None:
    """`mechdrift report RECORD... --html FILE --markdown FILE --junit FILE --model-card FILE`."""
    from mechdrift.report.written import WRITERS

    command.set_defaults(run=_report)
    command.add_argument(
        "records",
        metavar="RECORD",
        nargs="+",
        type=Path,
        help="of one run; or of several: a pair over time, or pairs of which the worst counts",
    )
    for form, (_, metavar, what) in WRITERS.items():
        command.add_argument(f"--{form}", metavar=metavar, type=Path, help=what)
    command.add_argument(
        "--by-time",
        action="store_true",
        help="order records by their steps of training, or by when their runs started, not as given",
    )
    command.add_argument(
        "--series",
        action="store_true",
        help="all records are of one pair over time, so that the last one counts; default: by base and the posts' names",
    )


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
    from mechdrift.commands.organisms import build, listing

    if options.build:
        build(options.build, options.out)
    else:
        print(listing())
    return 0


def _explain(options: argparse.Namespace) -> int:
    from mechdrift.commands.explain import explained
    from mechdrift.verdict.profiles import project_at

    print(explained(options.row, project_at(Path.cwd())))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    """Load a checkpoint, find its residual stream, and try on it what runs need. Exit code 7 where a gate lacks something."""
    from mechdrift.commands.inspect import inspected
    from mechdrift.report.terminal import progress_line

    found = inspected(options.spec, options.device, options.dtype, lambda label: progress_line(label, _write))
    for line in found.lines():
        print(line)
    return 0 if found.gates_hold else LACKING


def _replies(options: argparse.Namespace) -> int:
    """Read replies whose outcome is known: precision and recall by outcome, of the shipped classifier and of openings alone."""
    from mechdrift.commands.replies import table

    for line in table(options.file):
        print(line)
    return 0


def _map(options: argparse.Namespace) -> int:
    """Show at which tokens and blocks a checkpoint keeps what it knows, by activation patching."""
    from mechdrift.commands.map import Request, drawn
    from mechdrift.report.heat_map import can_shade
    from mechdrift.report.terminal import progress_line

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files and facts may hold what the output cannot show
    request = Request(**{field.name: getattr(options, field.name) for field in fields(Request)})
    for line in drawn(request, lambda label: progress_line(label, _write), can_shade(sys.stdout.encoding)):
        print(line, flush=True)
    return 0


def _bake(options: argparse.Namespace) -> int:
    """Write a checkpoint with a direction taken out of every weight that writes to the residual stream; on the CPU."""
    from mechdrift.commands.bake import bake
    from mechdrift.report.terminal import progress_line
    from mechdrift.report.text import described

    baked = bake(options.spec, options.direction, options.out, options.dtype, lambda label: progress_line(label, _write))
    print(f"baked: {described(baked)}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    """Run a model against itself, against jittered copies and against its reruns; write limits and a profile."""
    from mechdrift.commands.calibrate import Request, calibration

    given = {field.name: getattr(options, field.name) for field in fields(Request)}
    for line in calibration(Request(**given | {name: tuple(given[name]) for name in ("rerun", "only", "options")})):
        print(line, flush=True)
    return 0


def _compare(options: argparse.Namespace) -> int:
    """Show the rows of two records, their differences with intervals, and what else differs between the two runs."""
    from mechdrift.report.compare import compared
    from mechdrift.report.saved import read_saved

    for line in compared(read_saved(options.first), read_saved(options.second)):
        print(line)
    return 0


def _bisect(options: argparse.Namespace) -> int:
    """Find the first checkpoint at which a row drifted, by halving; each is measured once, and recordings are shared."""
    from mechdrift.commands.bisect import Request, bisect

    given = {field.name: getattr(options, field.name) for field in fields(Request)}
    bisect(Request(**given | {name: tuple(given[name]) for name in ("checkpoints", "options")}), partial(print, flush=True))
    return 0


def _report(options: argparse.Namespace) -> int:
    """Render records of --mechdrift-record; nothing is measured. Exit code: the newest run's, of pairs the worst."""
    from mechdrift.report.written import WRITERS, read_records, write_reports

    requested = {form: path for form in WRITERS if (path := getattr(options, form.replace("-", "_"))) is not None}
    shown = read_records(options.records, options.by_time, options.series)
    for line in write_reports(shown, requested):
        print(line)
    return shown.exit_code


def _write(text: str) -> None:
    """Progress, where somebody looks on."""
    if sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)


def _folder(options: argparse.Namespace) -> Path:
    """The cache that is meant; the default one is made, so that an unused one is empty and no error."""
    from mechdrift.engine.store import default_folder

    if options.dir is not None:
        return Path(options.dir).expanduser().absolute()
    folder = default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _info(options: argparse.Namespace) -> int:
    from mechdrift.commands.cache import info

    print(info(_folder(options)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from mechdrift.commands.cache import verify

    bad, read = verify(_folder(options))
    for line in bad:
        print(line)
    print(f"{read} files read, {len(bad)} bad" + ("; a run that asks for a bad one records it again" if bad else ""))
    return BAD if bad else 0


def _prune(options: argparse.Namespace) -> int:
    from mechdrift.commands.cache import prune

    print(prune(_folder(options), options.older_than, options.max_size))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, 1 for a bad cache, a report's verdict, or 4 for what cannot be used."""
    try:
        options = parser().parse_args(arguments)
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except (InputError, Unmeasurable) as error:
        print(f"mechdrift: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # `mechdrift organisms | head`: what is left to say has no reader, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD
