"""What a test is marked to ask, and how that leaves an xdist worker."""

from collections.abc import Iterable
from dataclasses import asdict, astuple, replace
from typing import Any

import pytest

from mechdrift.checkpoints.chain import BASE_TO_POST, Between
from mechdrift.errors import InputError
from mechdrift.findings.claims import Family
from mechdrift.findings.registry import registered
from mechdrift.session.rows import RequestedRow
from mechdrift.verdict.limits import Limit, Profile, Rule, parse_rule


def claimed(family: Family[Any]) -> pytest.MarkDecorator:
    """Parametrises a test with all rows of a family: its fixture `measured` is given a ClaimedRow as `request.param`."""
    # Libraries below may warn; a project that makes warnings errors means its own.
    may_warn = pytest.mark.filterwarnings("default")
    rows = [
        pytest.param(row, marks=[pytest.mark.finding(row.finding, **row.parameters), may_warn], id=row.id) for row in family.rows
    ]
    return pytest.mark.parametrize("measured", rows, indirect=True)


def requested_by(item: pytest.Item, profile: Profile) -> RequestedRow | None:
    """What a test is marked to ask: `@pytest.mark.finding("family.row", kind="cities")`, and `@pytest.mark.limit(at_least=0.9)`.

    Raises UsageError for an unknown finding, and for a limit that is none.
    """
    marker = item.get_closest_marker("finding")
    if marker is None:
        return None
    if len(marker.args) != 1 or marker.args[0] not in registered():
        expected = f"one of {', '.join(sorted(registered()))}"
        raise pytest.UsageError(f"mechdrift: {item.nodeid} is marked finding{marker.args!r}; expected {expected}; fix the marker")
    requested = replace(request_from(marker.args[0], marker.kwargs.items()), between=between_of(item))
    limit = item.get_closest_marker("limit")
    if limit is None:
        return requested
    try:
        usual = requested.rule(profile)
        where = f"{item.nodeid}, marked limit{limit.args or ''}"
        if limit.args:
            raise InputError(where, "at_least=, at_most= or role=", "fix the marker")
        return replace(requested, marked=parse_rule(where, limit.kwargs, usual, "marker"))
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error


def between_of(item: pytest.Item) -> Between:
    """Of which two checkpoints a test asks."""
    requested: dict[str, Any] = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    between: Between = requested.get("mechdrift_pair", BASE_TO_POST)
    return between


def request_from(
    name: str,
    parameters: Iterable[Iterable[object]],
    marked: dict[str, Any] | None = None,
    between: tuple[str, str, bool] = astuple(BASE_TO_POST),
) -> RequestedRow:
    """What a test asks, from plain data."""
    pairs = ((str(key), str(value)) for key, value in parameters)
    rule = Rule(marked["role"], marked["limit"] and Limit(**marked["limit"]), marked["tolerance"]) if marked else None
    return RequestedRow(registered()[name], tuple(sorted(pairs)), rule, Between(*between))


def request_data(requested: RequestedRow) -> list[Any]:
    """What a test asks as plain data, which alone can leave a worker."""
    parameters = [list(pair) for pair in requested.parameters]
    return [requested.finding.name, parameters, requested.marked and asdict(requested.marked), list(astuple(requested.between))]
