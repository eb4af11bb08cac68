"""Profiles: named sets of limits in TOML, shipped or the user's own, of which one may extend another."""

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.findings.registry import registered
from mechdrift.verdict.limits import NO_RULE, Profile, Role, Rule, parse_rule
from mechdrift.verdict.waivers import Waiver, parse_waiver

DEFAULT_PROFILE = "base-to-post"
BOTH = "both_post_trained"
KEYS = {"extends", "role", "rows", "waivers", BOTH}
PYPROJECT = "pyproject.toml"


def profile_names(project: Path | None = None) -> list[str]:
    """Names of the shipped profiles, and then of those in a project's pyproject.toml."""
    folder = files("mechdrift.suites") / "profiles"
    shipped = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return [*shipped, *sorted(_own(project))] if project else shipped


def project_at(started: Path) -> Path:
    """The folder whose pyproject.toml may hold profiles: that in which a command was started, or the nearest above.

    pytest's rootdir is no guide: a checkpoint's folder is an argument that exists, so it may be the rootdir.
    """
    return next((folder for folder in (started, *started.parents) if (folder / PYPROJECT).is_file()), started)


def load_profile(name: str, project: Path | None = None) -> Profile:
    """A profile: FILE.toml, one of `[tool.mechdrift.profiles]` in the project's pyproject.toml, or a shipped one.

    project: the folder with that pyproject.toml; its profiles may not have the names of shipped ones. Raises InputError that
    names profile, row and key.
    """
    own = _own(project)
    rules, waivers, both = _read(name, own, ())
    _require_known(name, [*rules, *waivers])
    requested = {finding.name: finding.rows for finding in registered().values()}
    gated = sum(requested[finding] for finding, rule in rules.items() if finding in requested and rule.role == "gate")
    for label, rule in rules.items():  # a row that is not as its finding
        if label not in requested:
            usual = rules.get(finding_of(label), NO_RULE).role
            gated += (rule.role == "gate") - (usual == "gate")
    return Profile(name, rules, gated, waivers, both)


def _read(name: str, own: dict[str, Any], seen: tuple[str, ...]) -> tuple[dict[str, Rule], dict[str, Waiver], bool]:
    """Rules and waivers of a profile, over those that it extends, and whether both models that it compares are post-trained."""
    where = f"profile {name}"
    if name in seen:
        raise InputError(f"{where}: extends itself ({' -> '.join((*seen, name))})", "an end", "fix the profile")
    table = _table(name, own)
    if unknown := sorted(table.keys() - KEYS):
        raise InputError(f"{where}: key {unknown[0]!r}", f"only {', '.join(sorted(KEYS))}", "fix the profile")
    rules: dict[str, Rule] = {}
    waivers: dict[str, Waiver] = {}
    both = False
    if "extends" in table:
        rules, waivers, both = _read(str(table["extends"]), own, (*seen, name))
    both = table.get(BOTH, both)
    if not isinstance(both, bool):
        raise InputError(f"{where}: {BOTH} {both!r}", "true or false", "fix the profile")
    rows, given = (_named(where, table, kind) for kind in ("rows", "waivers"))
    for label, row in rows.items():
        usual = rules.get(label) or rules.get(finding_of(label)) or NO_RULE
        rules[label] = parse_rule(f"{where}, rows.{label!r}", row, usual)
    for label, waiver in given.items():
        waivers[label] = parse_waiver(f"{where}, waivers.{label!r}", waiver)
    if "role" in table:
        role: Role = parse_rule(f"{where}, of all its rows", {"role": table["role"]}).role
        rules = {label: replace(rule, role=role) for label, rule in rules.items()}
    return rules, waivers, both


def _table(name: str, own: dict[str, Any]) -> dict[str, Any]:
    """What a profile's text says."""
    if name in own:
        table = own[name]
        if not isinstance(table, dict):
            raise InputError(f"profile {name}: {table!r} in {PYPROJECT}", "a table", "fix it")
        return dict(table)
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise InputError(f"profile {name}: no such file", "a TOML file", "check --mechdrift-profile")
        return parse_toml(f"profile {name}", Path(name).read_bytes())
    if name not in profile_names():
        there = ", ".join([*profile_names(), *sorted(own)])
        raise InputError(f"profile {name!r}: unknown", f"one of {there}, or FILE.toml", "check --mechdrift-profile")
    return parse_toml(f"profile {name}", (files("mechdrift.suites") / "profiles" / f"{name}.toml").read_bytes())


def _own(project: Path | None) -> dict[str, Any]:
    """`[tool.mechdrift.profiles]` of a project; nothing where there is none."""
    path = project / PYPROJECT if project else None
    if path is None or not path.is_file():
        return {}
    table: Any = parse_toml(PYPROJECT, path.read_bytes())
    for name in ("tool", "mechdrift", "profiles"):
        table = table.get(name, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise InputError(f"{PYPROJECT}, tool.mechdrift.profiles: {table!r}", "a table a profile", "fix it")
    if taken := sorted(table.keys() & set(profile_names())):
        raise InputError(
            f"{PYPROJECT}, tool.mechdrift.profiles.{taken[0]}: a shipped profile has that name",
            "a name of its own",
            f'rename it, and write extends = "{taken[0]}"',
        )
    return table


def parse_toml(what: str, raw: bytes) -> dict[str, Any]:
    """Raises InputError."""
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:  # a decoding error's repr holds the whole file
        raise InputError(f"{what}: {type(error).__name__}: {error}", "TOML", "fix the file") from error


def _named(where: str, table: dict[str, Any], kind: str) -> dict[str, Any]:
    """Its tables of one kind, by row."""
    found = table.get(kind, {})
    if not isinstance(found, dict):
        raise InputError(f"{where}, {kind}: {found!r}", f"a table [{kind}.FINDING] a row", "fix the profile")
    return found


def _require_known(name: str, labels: list[str]) -> None:
    """Raise InputError for a row that no finding has: it would be a gate that never closes, or a waiver of nothing."""
    for label in labels:
        if finding_of(label) not in registered():
            raise InputError(
                f"profile {name}, {label!r}: no such finding",
                f"one of {', '.join(sorted(registered()))}",
                "fix the profile, or install what brings the finding",
            )
        if row_of(label) != label:
            raise InputError(
                f"profile {name}, {label!r}: a row between two checkpoints", f"{row_of(label)!r}, for any two", "fix the profile"
            )
