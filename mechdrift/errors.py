"""The ways in which a row ends without a verdict."""


class InputError(Exception):
    """Something the user gave cannot be used; shown as one line, exit code 4."""

    def __init__(self, found: str, expected: str, do: str) -> None:
        """Found, expected, and what to do next, each a short phrase."""
        super().__init__(f"{found}; expected {expected}; {do}")


class Unmeasurable(Exception):
    """A measure is not defined on this pair; its row says so with this reason."""


class InterventionFailed(Exception):
    """An intervention did not do to the model what it says: a fault, so its rows are errors and never green."""


# In RuntimeErrors, of a CPU's allocator on Linux and on Windows, and of a GPU's.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )
