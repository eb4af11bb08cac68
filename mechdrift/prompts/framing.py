"""What tokenizers put around a text by themselves, and whether that alone tells two of them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Both = tuple["PreTrainedTokenizerBase", "PreTrainedTokenizerBase"]  # base's and post's
PROBES = ("a", "The")
NAMES = ("base", "post")
ONE_TOKENIZER = "compare checkpoints of one tokenizer"


@dataclass(frozen=True)
class Framing:
    """The special tokens around every text."""

    before: tuple[int, ...]
    """For example a BOS."""
    after: tuple[int, ...]
    """For example an EOS."""

    def inside(self, ids: Sequence[int]) -> list[int]:
        """A text's own tokens: what is left without these, as far as they are there. A prompt that was cut has no EOS."""
        start = len(self.before) if tuple(ids[: len(self.before)]) == self.before else 0
        end = len(ids) - len(self.after)
        has_after = self.after and end >= start and tuple(ids[end:]) == self.after
        return list(ids[start : end if has_after else len(ids)])


def framing(tokenizer: "PreTrainedTokenizerBase") -> Framing:
    """What the tokenizer itself puts before and after every text."""
    whole, bare = list(tokenizer(PROBES[0])["input_ids"]), _bare(tokenizer, PROBES[0])
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return Framing(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
    return Framing((), ())  # it makes nothing of a letter


def what_differs(tokenizers: Both, base: Sequence[Sequence[int]], post: Sequence[Sequence[int]]) -> str | None:
    """How post reads the same prompts otherwise than base, if only by what it puts around every text; None for other reasons.

    base, post: token ids of the prompts as each reads them. For example "base puts `<bos>` before a text, post does not".
    """
    frames = [framing(tokenizer) for tokenizer in tokenizers]
    inner = [[frame.inside(row) for row in rows] for frame, rows in zip(frames, (base, post), strict=True)]
    found = [
        _side(tokenizers, [frame.before for frame in frames], "before"),
        _side(tokenizers, [frame.after for frame in frames], "after"),
    ]
    if inner[0] != inner[1]:
        spaced = _spaced(tokenizers, inner)
        if not spaced:
            return None
        found.append(spaced)
    return "; ".join(filter(None, found)) or None


def _side(tokenizers: Both, ids: Sequence[tuple[int, ...]], where: str) -> str:
    """Which special tokens stand on one side of a text; empty where they are the same."""
    if ids[0] == ids[1]:
        return ""
    names = [" ".join(map(str, of.convert_ids_to_tokens(list(its)))) for of, its in zip(tokenizers, ids, strict=True)]
    if not all(names):
        has, lacks = NAMES if names[0] else NAMES[::-1]
        return f"{has} puts `{names[0] or names[1]}` {where} a text, {lacks} does not"
    if names[0] == names[1]:
        numbers = [", ".join(map(str, its)) for its in ids]
        return f"`{names[0]}` {where} a text is token {numbers[0]} of base and {numbers[1]} of post"
    return f"base puts `{names[0]}` {where} a text, post `{names[1]}`"


def _spaced(tokenizers: Both, inner: Sequence[list[list[int]]]) -> str:
    """Whether all that differs is a space that one of them puts before every text; empty where it is something else."""
    for one, other in ((1, 0), (0, 1)):
        spaces, plain = tokenizers[one], tokenizers[other]
        if not all(_bare(spaces, text) == _bare(plain, f" {text}") != _bare(plain, text) for text in PROBES):
            continue
        # Of a prompt its text, which the one without the space gives back as it was.
        texts = plain.batch_decode(inner[other], clean_up_tokenization_spaces=False)
        if all(_bare(plain, f" {text}") == row for text, row in zip(texts, inner[one], strict=True)):
            return f"{NAMES[one]} puts a space before a text, {NAMES[other]} does not"
    return ""


def _bare(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
