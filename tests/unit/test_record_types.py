"""The types of a record: what is read cannot be changed by who reads it, and no field is given by its place."""

import inspect

import msgspec
import pytest

from mechdrift.verdict import record, row

TYPES = sorted(
    {
        each
        for module in (record, row)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__.startswith("mechdrift.")
    },
    key=lambda each: each.__name__,
)


def test_they_are_all_here() -> None:
    assert {"RecordOf", "Inputs", "RunWork", "PhaseWork", "Move", "Step", "NamedCheckpoint", "JudgedRow", "StoredRow"} <= {
        each.__name__ for each in TYPES
    }


@pytest.mark.parametrize("each", [each for each in TYPES if each is not row.Range])  # its two ends have an order
def test_they_are_frozen_and_their_fields_are_named(each: type[msgspec.Struct]) -> None:
    assert each.__struct_config__.frozen
    kinds = {parameter.kind for parameter in inspect.signature(each).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}
