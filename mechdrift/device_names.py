"""Names of devices that are more than one."""

MAP = "map"
"""Over all GPUs of the machine, layer by layer, then the CPU."""
TENSOR_PARALLEL = "tp"
"""Over all GPUs, every layer split: several processes are one run."""
