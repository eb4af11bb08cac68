"""What tokenizers put around a text, as the tokenizers library builds them, and whether only that tells two apart."""

from collections.abc import Callable
from typing import Any

import pytest
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from mechdrift.engine.stored_recordings import Prompts, require_same_tokens
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.framing import Framing, framing, what_differs

TEXTS = ["The city of Lodz is in Peru.", "Water boils.", "A"]
SPECIAL = [("<bos>", 0), ("<eos>", 1)]


def around(single: str) -> Callable[[Tokenizer], None]:
    def change(backend: Tokenizer) -> None:
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=SPECIAL)

    return change


def prefix_space(backend: Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def prepended(backend: Tokenizer) -> None:
    backend.normalizer = normalizers.Prepend(" ")


def lower(backend: Tokenizer) -> None:
    backend.normalizer = normalizers.Lowercase()


def made(*changes: Callable[[Tokenizer], None]) -> Any:
    tokenizer = tiny_tokenizer()
    for change in changes:
        change(tokenizer.backend_tokenizer)
    return tokenizer


@pytest.mark.parametrize(
    ("single", "expected"),
    [
        ("<bos> $A", Framing((0,), ())),
        ("$A", Framing((), ())),
        ("$A <eos>", Framing((), (1,))),
        ("<bos> <eos> $A <eos> <eos>", Framing((0, 1), (1, 1))),
    ],
)
def test_a_frame_is_what_the_processor_adds(single: str, expected: Framing) -> None:
    tokenizer = made(around(single))
    assert framing(tokenizer) == expected
    bare = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert [expected.inside(row) for row in tokenizer(TEXTS)["input_ids"]] == bare
    assert [expected.inside(row) for row in bare] == bare  # as a prompt is that was cut


BASE = "base puts `<bos>` before a text, post does not"


@pytest.mark.parametrize(
    ("base", "post", "expected"),
    [
        ([], [around("$A")], BASE),
        ([around("$A")], [], "post puts `<bos>` before a text, base does not"),
        ([], [around("<bos> $A <eos>")], "post puts `<eos>` after a text, base does not"),
        ([], [around("<eos> $A")], "base puts `<bos>` before a text, post `<eos>`"),
        ([], [around("<bos> <bos> $A")], "base puts `<bos>` before a text, post `<bos> <bos>`"),
        ([], [around("$A <eos>")], f"{BASE}; post puts `<eos>` after a text, base does not"),
        ([], [prefix_space], "post puts a space before a text, base does not"),
        ([prepended], [], "base puts a space before a text, post does not"),
        ([], [prefix_space, around("$A")], f"{BASE}; post puts a space before a text, base does not"),
        ([], [lower], None),
        ([], [lower, around("$A")], None),
        ([], [], None),
    ],
)
def test_it_is_named_if_nothing_else_differs(base: list[Any], post: list[Any], expected: str | None) -> None:
    tokenizers = made(*base), made(*post)
    ids = [tokenizer(TEXTS)["input_ids"] for tokenizer in tokenizers]
    assert what_differs(tokenizers, *ids) == expected


def test_one_prompt_that_differs_otherwise_is_enough() -> None:
    tokenizers = made(), made(around("$A"))
    ids = [tokenizer(TEXTS)["input_ids"] for tokenizer in tokenizers]
    ids[1][2][0] += 1
    assert what_differs(tokenizers, *ids) is None
    read = [Prompts(rows, [len(row) - 1 for row in rows], [()] * len(rows)) for rows in ids]
    with pytest.raises(Unmeasurable, match=r"token ids differ between base and post on 3 of 3 prompts, first prompt 0: compare"):
        require_same_tokens(read[0], read[1], tokenizers)
    ids[1][2][0] -= 1
    with pytest.raises(Unmeasurable, match=f"{BASE}, on 3 of 3 prompts; save post with base's tokenizer"):
        require_same_tokens(read[0], read[1], tokenizers)


def test_a_token_that_two_tokenizers_number_otherwise_is_named_with_its_numbers() -> None:
    other = made()
    other.add_special_tokens({"bos_token": "<s>"})
    number = other.convert_tokens_to_ids("<s>")
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    third = made()
    third.add_tokens(["<x>"], special_tokens=True)
    third.add_special_tokens({"bos_token": "<s>"})
    moved = third.convert_tokens_to_ids("<s>")
    third.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", moved)])
    ids = [tokenizer(TEXTS)["input_ids"] for tokenizer in (other, third)]
    assert (number, moved) == (258, 259)
    assert what_differs((other, third), *ids) == "`<s>` before a text is token 258 of base and 259 of post"
