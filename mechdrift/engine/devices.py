"""Models that lie on several devices."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def input_device(model: "PreTrainedModel") -> "torch.device":
    """Where token ids go: to the device on which the embedding runs.

    model.device is where the first weight lies, which is `meta` for one that accelerate offloads.
    """
    import torch

    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)
