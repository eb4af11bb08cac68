"""Where rows come from: what was compared, and how. Part of every baseline, and what distinguishes two records."""

from pathlib import PurePath
from typing import Any

Origin = dict[str, Any]
NO_NUMBER = {"fail_on", "keep_replies"}
"""Settings that change no number and no verdict."""
SHAPE = ("model_type", "layers", "width", "quantised", "digests")


def origin_of(record: dict[str, Any]) -> Origin:
    """The part of a record that its numbers depend on, without paths of a machine."""
    environment = {name: version for name, version in record["environment"].items() if name != "pytest"}
    settings = {name: value for name, value in record["settings"].items() if name not in NO_NUMBER}
    inputs = {side: _checkpoint(record["inputs"][side]) for side in ("base", "post")}
    return dict(_placeless({"inputs": inputs, "settings": settings, "environment": environment}))


def _checkpoint(point: dict[str, Any]) -> dict[str, Any]:
    """By content; a folder has no name that means something elsewhere."""
    named = {"spec": point["pinned"]} if point.get("source") in ("hub", "organism") else {}
    return named | {name: point[name] for name in SHAPE if name in point}


def _placeless(value: Any) -> Any:
    """Without the folders of absolute paths."""
    if isinstance(value, dict):
        return {name: _placeless(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_placeless(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def differences(was: Origin, now: Origin, names: tuple[str, str] = ("there", "here"), but: str = "") -> list[str]:
    """What differs between two origins, a line each.

    names: what to call the two; but: a side that is meant to differ. What one of them does not say, being older, is no
    difference.
    """
    there, here = names
    lines = []
    for side in ("base", "post"):
        first, second = (origin["inputs"][side]["digests"] for origin in (was, now))
        other = [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]
        if other and side != but:
            summary = [f"{str(of.get(other[0]))[:12]} {where}" for of, where in ((first, there), (second, here))]
            lines.append(f"another {side}, by its {', '.join(other)}: {other[0]} {', '.join(summary)}")
    for part in ("settings", "environment"):
        first, second = was[part], now[part]
        for name in sorted(first.keys() & second.keys()):
            if first[name] != second[name]:
                lines.append(f"{name} {_summary(first[name])} {there}, {_summary(second[name])} {here}")
    return lines


def _summary(value: Any) -> str:
    """A setting in a few words: of what has a digest, which."""
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('file', value.get('spec'))} (sha256 {value['sha256'][:12]})"
    return str(value)
