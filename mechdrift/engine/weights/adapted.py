"""An adapter's change put into one matrix at a time, by PEFT itself, on a model around it that takes no memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoints.adapters import CONFIG, put_on
from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.untrusted import read_json
from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

DRAWN = ("gaussian", "orthogonal", "eva")  # ways to begin a LoRA that leave the base's weights alone; others take a part of them


class Adapted:
    """What `BASE+ADAPTER` makes of the weights of BASE, in float32: what load_model makes of them all at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the adapter. Raises InputError where it does not fit, Unmeasurable where it changes the base as it is put on."""
        import torch
        from transformers import AutoModelForCausalLM

        begun = read_json(Path(checkpoint.adapter) / CONFIG).get("init_lora_weights")
        if isinstance(begun, str) and begun not in DRAWN:
            raise Unmeasurable(
                f"{checkpoint.spec}: begun by {begun!r}, which changes the base as well: merge it, and compare that"
            )
        with torch.device("meta"):
            hollow = AutoModelForCausalLM.from_config(load_config(checkpoint))
        for module in hollow.modules():
            for name, parameter in module.named_parameters(recurse=False):
                one = torch.zeros((), dtype=torch.float32).expand(parameter.shape)  # one number, whatever the shape
                setattr(module, name, torch.nn.Parameter(one, requires_grad=False))
        adapted = put_on(checkpoint.spec, hollow, Path(checkpoint.adapter), merge=False)
        # Which cannot run, so that blocks are not found by a forward.
        lists = [module for module in adapted.get_decoder().modules() if isinstance(module, torch.nn.ModuleList)]
        self._blocks = max(lists, key=len)

    def merged(self, layer: int, module: str, weight: "Tensor") -> "Tensor":
        """A module's weight with its change; the weight itself where the adapter leaves it alone."""
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        tuned = self._blocks[layer].get_submodule(module)
        if isinstance(tuned, ModulesToSaveWrapper):
            return tuned.modules_to_save[tuned.active_adapter].weight.detach()
        if not isinstance(tuned, BaseTunerLayer):
            return weight
        place = tuned.get_base_layer()
        empty = place.weight
        place.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
        try:
            tuned.merge()
            return place.weight.detach()
        finally:
            place.weight = empty
            tuned.merged_adapters.clear()
