"""The JSON schema of records, generated from their types: `python -m mechdrift.report.schema` writes it beside this module."""

import json
from pathlib import Path
from typing import Any

import msgspec

from mechdrift.report.record_file import write_json
from mechdrift.verdict.record import StoredRecord

PUBLISHED = Path(__file__).with_name("record.schema.json")


def schema() -> dict[str, Any]:
    """JSON schema, draft 2020-12, of the records that this version writes: closed, while readers skip what they do not know."""
    found = msgspec.json.schema(StoredRecord)
    definitions = found.pop("$defs")
    for definition in definitions.values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    whole = definitions.pop(found["$ref"].rpartition("/")[2])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | whole | {"title": "mechdrift record", "$defs": definitions}


def published() -> dict[str, Any]:
    """What lies beside this module."""
    data: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return data


if __name__ == "__main__":
    write_json(PUBLISHED, schema())
