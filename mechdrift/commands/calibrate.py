"""`mechdrift calibrate`: limits from null runs of the user's own model, and how often they would be false alarms."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mechdrift.checkpoints.identity import Memory
from mechdrift.checkpoints.resolve import Checkpoint, Resolver
from mechdrift.commands.null_copies import jittered
from mechdrift.commands.profile_file import Target, check_free, write_limits
from mechdrift.engine.store import default_folder
from mechdrift.errors import InputError
from mechdrift.findings.labels import finding_of
from mechdrift.report.calibration import alarms_table, limits_table
from mechdrift.report.whole import read_record
from mechdrift.session.many_runs import Run, records
from mechdrift.verdict.calibrated import NullRun, calibrated, false_alarms, left_out
from mechdrift.verdict.profiles import load_profile, project_at

COPIES = "copies"
IDENTITY, JITTERED = "identity", "jittered"
NO_SHORTCUT = "--mechdrift-no-identity-shortcut"


@dataclass(frozen=True)
class Request:
    """What is calibrated, from what, and where it goes."""

    base: str
    """Spec of the model."""
    rerun: tuple[str, ...]
    """Specs of what its owner regards as no change: trained again with another seed."""
    seeds: int
    """Of splits; each also draws a jittered copy of its own."""
    profile: str
    """Whose rows and roles are calibrated."""
    only: tuple[str, ...]
    """Rows, findings or families whose limits are made; none: all that the profile limits."""
    runs: Path
    """Folder of the records; all that lie there count."""
    write: Target | None
    """Where the new profile goes."""
    force: bool
    """Whether limits of a profile that is there are replaced."""
    margin: float
    """Beyond the worst null run, as a share of its distance."""
    options: tuple[str, ...]
    """Further arguments of pytest, for every run."""


def calibration(request: Request) -> Iterator[str]:
    """Measure what is not yet in the folder, then report limits and false alarms and write the profile; line by line.

    Raises InputError, before anything is measured where that can be.
    """
    project = project_at(Path.cwd())
    profile = load_profile(request.profile, project)
    if unknown := [
        name
        for name in request.only
        if not any(name in (label, finding_of(label), label.partition(".")[0]) for label in profile.rules)
    ]:
        raise InputError(
            f"--only {unknown[0]}: not in profile {profile.name}",
            "a row, a finding or a family of it",
            "see pytest --mechdrift-list",
        )
    if request.write:
        check_free(request.write, request.force)
    resolver = Resolver(Memory(default_folder() / "identities"))
    base = resolver.resolve(request.base)
    reruns = [resolver.resolve(spec) for spec in request.rerun]
    null_runs(request.runs, base)  # a stranger's record stops the series before it starts
    yield from _measured(request, base, reruns)
    runs = null_runs(request.runs, base)
    if not runs:
        raise InputError(f"--runs {request.runs}: no record, and none to measure", "null runs", "give --seeds 1 or more")
    provenance = f"calibrated: {len(runs)} null runs of {request.base}, margin {request.margin:g}"
    new = calibrated(runs, profile, request.margin, provenance, request.only)
    yield f"{len(runs)} null runs of {len({run.post for run in runs})} posts, profile {profile.name}, margin {request.margin:g}"
    if not any(is_rerun(run) for run in runs):
        yield "no reruns: these limits are for the same weights in another precision, and no retrained model will be held by them"
    yield ""
    yield from limits_table(new)
    yield ""
    yield from alarms_table(false_alarms(runs, lambda _: profile), left_out(runs, profile, request.margin, request.only))
    if request.write:
        write_limits(request.write, request.profile, new)
        yield f"written: {request.write.path}; use it: --mechdrift-profile {request.write}"


def _measured(request: Request, base: Checkpoint, reruns: list[Checkpoint]) -> Iterator[str]:
    """Run what has no record yet; says before each how long the rest will take, by those that ran."""
    if not (copied := base.exact_weights and not base.adapter and not base.gguf):
        yield f"no jittered copies of {base.spec}: its weights are adapted or rounded; identity and reruns alone"
    planned = [
        (name, post, seed)
        for seed in range(request.seeds)
        for name, post in [(IDENTITY, base.pinned), *([(JITTERED, None)] if copied else [])]
        + [(f"rerun-{point.short}", point.pinned) for point in reruns]
    ]
    left = [one for one in planned if not (request.runs / f"{_name(one[0], one[2])}.json").exists()]
    took: list[float] = []
    for number, (kind, post, seed) in enumerate(left, 1):
        name = _name(kind, seed)
        to_go = f", about {sum(took) / len(took) * (len(left) - number + 1) / 60:.0f} min to go" if took else ""
        yield f"run {number} of {len(left)}: {name}{to_go}"
        spec = post or str(jittered(base, request.runs / COPIES, seed))
        options = (NO_SHORTCUT, "--mechdrift-seed", str(seed), *request.options)
        for record in records([Run(name, base.pinned, spec, options)], request.runs):
            took.append(record.run.seconds)


def _name(kind: str, seed: int) -> str:
    return f"{kind}-seed{seed}"


def is_rerun(run: NullRun) -> bool:
    """Whether its post was trained, by its name; a record that was put there is one."""
    return not run.name.startswith((f"{IDENTITY}-", f"{JITTERED}-"))


def null_runs(folder: Path, base: Checkpoint) -> list[NullRun]:
    """All records of a folder. Raises InputError for one of another base."""
    return [_null_run(path, base) for path in sorted(folder.glob("*.json"))]


def _null_run(path: Path, base: Checkpoint) -> NullRun:
    again = "move it out of --runs, or name another folder"
    try:
        record = read_record(path)
        found, post = (side.digests["weights"] for side in (record.inputs.base, record.inputs.post))
    except KeyError as error:
        raise InputError(f"{path}: no digest of {error}", "a whole record", again) from error
    if found != base.digests["weights"]:
        raise InputError(f"{path}: a record of another base, weights {found[:12]}", f"one of {base.spec}", again)
    return NullRun(path.stem, post, {row.label: row for row in record.rows})
