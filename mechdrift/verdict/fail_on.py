"""Which verdicts of a gate make a run fail: apart from limits, since every start of pytest reads it."""

from typing import Literal

FailOn = Literal["drifted", "undecided", "unmeasurable"]
FAIL_ON: tuple[FailOn, ...] = ("drifted", "undecided", "unmeasurable")
"""Verdicts of a gate that make a run fail, unless its user leaves some out."""
