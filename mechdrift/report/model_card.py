"""Hugging Face metadata of the rows that held, for the head of a model card."""

from pathlib import PurePath
from typing import Any

from mechdrift.report.series import View
from mechdrift.report.text import limit, number, visible
from mechdrift.verdict.failing import holds
from mechdrift.verdict.record import CheckpointIdentity
from mechdrift.verdict.row import StoredRow

TASK = "text-generation"


def model_card(shown: View) -> str:
    """A model-index, YAML: of each post of the newest record of each pair the rows that are held."""
    from huggingface_hub import CardData
    from huggingface_hub.repocard_data import eval_results_to_model_index

    index = []
    for whole in shown.newest:
        inputs = whole.record.inputs
        for name, post in inputs.ends:
            rows = [row for row in whole.rows if row.between == ["base", name] and row.estimate is not None and holds(row)]
            if rows:
                index += eval_results_to_model_index(_name(post), [_result(row) for row in rows])
    return f"{CardData(**{'model-index': index}).to_yaml()}\n"


def _name(point: CheckpointIdentity) -> str:
    """Without the folders of a machine."""
    spec = point.pinned or point.spec
    return visible(PurePath(spec).name if PurePath(spec).is_absolute() else spec)


def _result(row: StoredRow) -> Any:
    from huggingface_hub import EvalResult

    data = visible(row.key.data or "-")
    summary = f"{row.claim} ({row.unit}{f', limit {limit(row)}' if row.limit else ''})"
    return EvalResult(
        task_type=TASK,
        dataset_type=data,
        dataset_name=data,
        metric_type=visible(row.label),
        metric_name=visible(summary),
        metric_value=row.estimate,
        metric_args={"interval": f"[{number(row.low)}, {number(row.high)}]", "n": row.n},
    )
