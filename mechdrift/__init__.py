"""Compare two checkpoints of a language model from the inside: which mechanisms held, which drifted.

These names are promised; whatever else is imported from inside may move. They are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechdrift.api import compare as compare
    from mechdrift.api import load_record as load_record
    from mechdrift.errors import InputError as InputError
    from mechdrift.errors import Unmeasurable as Unmeasurable
    from mechdrift.findings.drift import Drift as Drift
    from mechdrift.findings.drift import Item as Item
    from mechdrift.findings.registry import Finding as Finding
    from mechdrift.findings.registry import register as register
    from mechdrift.stats import Evidence as Evidence
    from mechdrift.stats import Jackknifed as Jackknifed
    from mechdrift.stats import Normal as Normal
    from mechdrift.stats import PairedProportions as PairedProportions
    from mechdrift.stats import Proportion as Proportion
    from mechdrift.stats import ratio_of_means as ratio_of_means

PLACES = {
    "mechdrift.api": ("compare", "load_record"),
    "mechdrift.errors": ("InputError", "Unmeasurable"),
    "mechdrift.findings.registry": ("Finding", "register"),
    "mechdrift.findings.drift": ("Drift", "Item"),
    "mechdrift.stats": ("Evidence", "Jackknifed", "Normal", "PairedProportions", "Proportion", "ratio_of_means"),
}
__all__ = [name for names in PLACES.values() for name in names]


def __getattr__(name: str) -> object:
    """A promised name, from where it is."""
    for module, names in PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'mechdrift' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The promised names."""
    return sorted(__all__)
