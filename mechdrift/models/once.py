"""What is found on a model is looked for once."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Found = TypeVar("Found")


def once_a_model(find: "Callable[[PreTrainedModel], Found]") -> "Callable[[PreTrainedModel], Found]":
    """Keep what is found on a model, or with which words nothing is, as long as the model is in memory."""
    known: WeakKeyDictionary[nn.Module, Found | str] = WeakKeyDictionary()

    @wraps(find)
    def found(model: "PreTrainedModel") -> Found:
        if model not in known:
            try:
                known[model] = find(model)
            except Unmeasurable as error:
                known[model] = str(error)  # the error itself would keep the model in its frames
        answer = known[model]
        if isinstance(answer, str):
            raise Unmeasurable(answer)
        return answer

    return found
