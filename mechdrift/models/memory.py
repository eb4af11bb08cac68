"""Out of memory on a batch."""

from mechdrift.errors import InputError


class BatchTooLarge(InputError):
    """A batch did not fit; readings that are compared are taken again at half of it, all of them."""

    def __init__(self, spec: str, batch_tokens: int, prompts: list[int]) -> None:
        """Found on which checkpoint, with which bound on a batch, over prompts of which lengths."""
        self.batch_tokens = batch_tokens
        """The bound that was too large, in padded tokens."""
        self.single = batch_tokens < 2 * min(prompts)
        """Whether every batch was one prompt already."""
        if self.single:
            found = f"{spec}: out of memory on one prompt of at most {max(prompts)} tokens"
            super().__init__(found, "memory for one", "use a larger device, or --mechdrift-dtype bfloat16")
        else:
            found = f"{spec}: out of memory on a batch of {batch_tokens} tokens"
            super().__init__(found, "a batch that fits", f"use --mechdrift-batch {batch_tokens // 2}")
