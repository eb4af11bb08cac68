"""Records made by hand, as whole as a run's, for readers of records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from mechdrift.findings.drift import Item
from mechdrift.report.record_file import beside_path, write_record
from mechdrift.report.whole import Whole, read_whole
from mechdrift.verdict.record import Record
from mechdrift.verdict.row import Row

HOSTILE = (
    "<script>alert(1)</script>\"'&amp;]]>|`x`::error::\n\r\x1b[31m\x00\x85\ufffe\u202e @me #1 {{7*7}} {% x %} **b** [l](j:x)"
)
"""What a model, a file or a profile may say."""
STEPS = [
    {"between": ["base", "sft"], "estimate": 0.9, "low": 0.8, "high": 1.0, "verdict": "held"},
    {"between": ["sft", "post"], "estimate": 0.5, "low": 0.4, "high": 0.6, "verdict": "drifted"},
]
"""Of a chain: a row's way from base to post."""


def row(label: str, estimate: float | None = 0.9, verdict: str | None = None, **more: Any) -> Row:
    """A row as a run has it: with a number, an interval of 0.05 either way and a limit of 0.8; `text` is in all of its words."""
    text = more.pop("text", "")
    number = estimate is not None
    judged = verdict or ("held" if number else "unmeasurable")
    fields: dict[str, Any] = {
        "label": label,
        "finding": label.partition("[")[0].partition(" ")[0],
        "claim": f"It stays. {text}",
        "source": f"By hand. {text}",
        "role": "gate",
        "limit": {"at_least": 0.8, "at_most": None, "provenance": "by hand"},
        "verdict": judged,
        "reason": f"because {text}",
        "key": {"measure": label, "site_rule": "r", "data": f"d{text}", "parameters": {}} if number else key_of_none(label),
        "status": "ok" if number else "absent",
        "estimate": estimate,
        "low": estimate - 0.05 if estimate is not None else None,
        "high": estimate + 0.05 if estimate is not None else None,
        "null": 1.0 if number else None,
        "floor": {"low": 0.99, "high": 1.01} if number else None,
        "n": 100 if number else None,
        "evidence": {"kind": "normal", "estimate": estimate, "standard_error": 0.03, "n": 100} if number else None,
        "unit": f"ratio{text}" if number else None,
        "better": "higher" if number else None,
        "site": f"here{text}" if number else None,
        "note": text,
        "p_value": 0.5 if number else None,
        "needed_n": None,
        "contributors": [],
        "curve": [],
    }
    return msgspec.convert(msgspec.to_builtins(fields | more), Row)


def key_of_none(label: str) -> dict[str, Any]:
    """The key of a row without a number."""
    return {"measure": label, "site_rule": None, "data": None, "parameters": {}}


def items(base: Sequence[float], post: Sequence[float], kind: str = "k") -> list[Item]:
    """Items of a row; each adds its difference to the mean."""
    return [Item(f"item {place}", kind, b, p, (p - b) / len(base)) for place, (b, p) in enumerate(zip(base, post, strict=True))]


def waiver(expired: bool = False, text: str = "") -> dict[str, Any]:
    """Leave for a row not to hold."""
    return {"owner": f"me{text}", "reason": f"known{text}", "expires": "2027-01-31", "expired": expired}


def against(status: str, text: str = "") -> dict[str, Any]:
    """What a baseline has of a row."""
    numbers = {
        "was": 0.95,
        "difference": -0.05,
        "low": -0.06,
        "high": -0.04,
        "how": "paired",
        "tolerance": 0.02,
        "p_value": 0.001,
    }
    return {"name": f"v1{text}", "status": status, "reason": f"as stored{text}"} | numbers


def exit_code_of(rows: Sequence[Row]) -> int:
    """With which a run of these rows ends: the worst of its gates that nobody waived."""
    gates = {one.verdict for one in rows if one.role == "gate" and not one.waiver}
    by_verdict = {"error": 1, "drifted": 1, "undecided": 6, "unmeasurable": 7}
    return next((code for verdict, code in by_verdict.items() if verdict in gates), 0)


def record(*rows: Row, post: str = "runs/post", started: float = 1e9, text: str = "", **more: Any) -> dict[str, Any]:
    """A record with these rows; `text` is in all of its words."""
    point = {"spec": f"runs/base{text}", "model_type": "llama", "layers": 2, "width": 8, "parameters": 100}
    point |= {"digests": {"weights": "a" * 64}, "source": "folder", "commit": None, "pinned": "runs/base", "quantised": ""}
    settings = {
        "profile": f"base-to-post{text}", "gated_as_shipped": 16, "tier": "commit", "dtype": "float32", "device": "cpu",
        "fail_on": ["drifted", "undecided", "unmeasurable"], "batch_tokens": 4096, "seed": 0, "statements": f"shipped{text}",
        "identity_shortcut": True, "hand_set": None,
    }  # fmt: skip
    result = {
        "schema": "1.5",
        "inputs": {"base": point, "post": point | {"spec": post, "pinned": post}, "stages": [], "posts": [], "identical": False},
        "settings": settings,
        "environment": {"torch": f"2.13{text}"},
        "rows": list(rows),
        "chain": [],
        "not_selected": [f"a.other{text}"],
        "exit_code": exit_code_of(rows),
        "extra": {},
        "run": {"started": started, "seconds": 3.0, "work": {}, "phases": {}, "warnings": [f"slow{text}"]},
    }
    return result | more


def changed(one: Row, **more: Any) -> Row:
    """The row with other fields."""
    return msgspec.convert(msgspec.to_builtins(one) | msgspec.to_builtins(more), Row)


def written(path: Path, result: dict[str, Any]) -> Path:
    """Write a record with what lies beside it; returns its path."""
    write_record(path, typed(result))
    return path


def typed(result: dict[str, Any]) -> Record:
    """A record as a run has it."""
    return msgspec.convert(msgspec.to_builtins(result), Record)


def full(path: Path, text: str) -> Whole:
    """A record with everything that a report shows, with a text in all its words."""
    columns = ["subject[-1]", f"last{text}"]
    corners = {"b": 0.4, "p": 0.1}
    maps = [
        {"name": f"{side}{text}", "columns": columns, "values": [[0.1, 0.2], [0.3, corner]]} for side, corner in corners.items()
    ]
    curve = [{"site": f"{place}{text}", "estimate": 0.9, "low": 0.8, "high": 1.0} for place in range(3)]
    neurons = items([-0.1, -0.2, -0.3], [-0.1, -0.25, -0.3], f"shared{text}")
    most = [{"name": f"w{text}", "kind": f"k{text}", "base": 0.1, "post": 0.2, "contribution": -0.1}]
    rows = [
        row("knowledge.location", 0.5, "drifted", maps=maps, curve=curve, contributors=most, text=text),
        row("confidence.overlap", items=neurons, role="report", text=text),
        row(
            "refusal.ablation",
            0.5,
            unit=f"c{text}, own{text} minus plain{text}",
            arms=[f"plain{text}", f"own{text}"],
            items=items([0, 0, 1, 0], [1, 1, 1, 0]),
        ),
        row("structure.change", role="report", limit=None, verdict="reported", text=text),
        row("truth.none", None, text=text),
        row("truth.told", None, role="report", text=text),
        row("truth.waived", 0.7, "undecided", waiver=waiver(text=text), baseline=against("worse", text), text=text),
        row("knowledge.location sft -> post", 0.5, "drifted", between=["sft", "post"], role="report", text=text),
        row(f"own.{text or 'row'}", text=text),
    ]
    chain = [{"label": "knowledge.location", "role": "gate", "verdict": "drifted", "steps": STEPS, "told": f"it drifted{text}"}]
    result = record(*rows, text=text, chain=chain, exit_code=1)
    result["inputs"]["stages"] = [{"name": "sft"} | result["inputs"]["base"]]
    written(path, result)
    save_file(
        {"change": np.full((2, 2), 0.1), "scale": np.ones((2, 2))},
        beside_path(path, ["base", "post"], ".structure.safetensors"),
        {"kinds": "q,k"},
    )
    whole = read_whole(path)
    assert not whole.missing
    return whole
