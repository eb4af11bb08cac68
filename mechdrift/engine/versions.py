"""Versions of what computes a number: another release may add up in another order, or unpack a weight otherwise."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from mechdrift.checkpoints.resolve import Checkpoint

UNPACKERS = (  # of quantised weights, as their packages are called
    *("accelerate", "aqlm", "auto-gptq", "auto-round", "autoawq", "bitsandbytes", "compressed-tensors", "gptqmodel", "hqq"),
    *("kernels", "optimum", "optimum-quanto", "torchao"),
)


def versions_for(checkpoint: Checkpoint) -> dict[str, str]:
    """Versions of the packages that compute with these weights: what merges an adapter or unpacks rounded weights among them."""
    names = ["torch", "transformers"]
    names += ["peft"] if checkpoint.adapter else []
    names += ["gguf"] if checkpoint.gguf else []
    names += [name for name in UNPACKERS if is_installed(name)] if checkpoint.quantised and not checkpoint.gguf else []
    return {name: version(name) for name in names}


@cache
def is_installed(package: str) -> bool:
    """Whether there is such a package here."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
