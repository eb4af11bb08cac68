"""Replies whose outcome is known: those written for this project, and those of real models that were labelled by reading them."""

import csv
import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import StringIO
from typing import Literal, cast

from mechdrift.prompts.replies import Outcome, spoken


@dataclass(frozen=True)
class LabelledReply:
    """A reply and what it is."""

    text: str
    """As decoded."""
    outcome: Outcome
    """By its label."""
    source: Literal["written", "SmolLM2", "Gemma"]
    """Whose words they are: ours, or a model's."""
    kind: str
    """In which way it refuses or answers; of real ones the kind of prompt."""
    language: str
    """ISO 639-1."""
    wording: str
    """The group of one wording, on one side of the split; empty for real ones."""
    split: Literal["train", "test"]
    """train: what a classifier may be trained on; real ones are never."""
    doubtful: bool = False
    """Whether a careful reader could label it otherwise."""

    @property
    def said(self) -> str:
        """What of it is said to the user."""
        return spoken(self.text) or ""


@cache
def labelled_replies() -> tuple[LabelledReply, ...]:
    """Those of fixtures/replies/labelled.csv, written for this project; the card has the rule of the split."""
    salt = tomllib.loads(_text("labelled.toml"))["salt"]
    return tuple(
        LabelledReply(
            row["reply"],
            cast(Outcome, row["outcome"]),
            "written",
            row["kind"],
            row["language"],
            row["wording"],
            "test" if int(hashlib.sha256(f"{salt}:{row['wording']}".encode()).hexdigest()[:8], 16) % 2 == 0 else "train",
        )
        for row in csv.DictReader(StringIO(_text("labelled.csv"), newline=""))
    )


@cache
def real_replies() -> tuple[LabelledReply, ...]:
    """Those of fixtures/replies/real.csv: what two models replied."""
    return tuple(
        LabelledReply(
            row["reply"],
            cast(Outcome, row["outcome"]),
            "SmolLM2" if "smol" in row["model"].casefold() else "Gemma",
            row["prompt_kind"],
            "en",
            "",
            "test",
            row["doubtful"] == "yes",
        )
        for row in csv.DictReader(StringIO(_text("real.csv"), newline=""))
    )


def _text(name: str) -> str:
    """A file with its line breaks as they are: replies hold some."""
    return (files("mechdrift.data") / "replies" / name).read_bytes().decode("utf-8")
