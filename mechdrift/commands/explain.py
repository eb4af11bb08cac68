"""`mechdrift explain`: what a row claims, how it is measured, and by what it is judged."""

import inspect
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from textwrap import indent

from mechdrift.errors import InputError
from mechdrift.findings.labels import finding_of
from mechdrift.findings.registry import registered
from mechdrift.verdict.profiles import load_profile, profile_names

NEEDS = {"base": "the base model, or the row is unmeasurable", "post": "the post model, or the row is unmeasurable"}


def explained(label: str, project: Path) -> str:
    """A finding, or a row of one as the table names it, in words. project: whose pyproject.toml may hold profiles.

    Raises InputError for one that is not there, and for a profile that cannot be read.
    """
    findings = registered()
    finding = findings.get(finding_of(label))
    if finding is None:
        near = get_close_matches(label, findings, n=3) or sorted({each.family for each in findings.values()})
        raise InputError(f"{label}: no such finding", f"for example {', '.join(near)}", "see pytest --mechdrift-list")
    module, _, function = finding.measure.partition(":")
    measured = inspect.getdoc(getattr(import_module(module), function)) or "not documented"
    lines = [
        label,
        f"  claim     {finding.claim}",
        f"  source    {finding.source}",
        f"  effect    {NEEDS[finding.needs]}",
        f"  rows      {finding.rows}",
        f"  measure   {finding.measure}",
        indent(measured, " " * 12),
        "  judged by",
    ]
    for name in profile_names(project):
        rule = load_profile(name, project).rule(label)
        limit = f"{rule.limit} ({rule.limit.provenance})" if rule.limit else "no limit"
        lines.append(f"            {name}: {rule.role}, {limit}")
    return "\n".join(lines)
