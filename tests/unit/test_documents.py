"""Documents: no text twice, the second half the first in reverse, as long as can be."""

import pytest

from mechdrift.prompts.documents import BETWEEN, FEWEST, documents

TEXTS = [f"text {number} of many words" for number in range(640)]


def words(texts: list[str]) -> list[int]:
    """Tokens, were every word one and white space none."""
    return [len(text.split()) for text in texts]


def test_each_is_its_first_half_and_that_in_reverse() -> None:
    found = documents(TEXTS, words, 128, 6, 0)
    assert len(found) == 6
    for document in found:
        lines = document.split(BETWEEN)
        assert lines == lines[::-1]
        assert words([document])[0] >= 128
    every = [line for document in found for line in {*document.split(BETWEEN)}]
    assert len(every) == len({*every})


def test_a_seed_draws_and_the_order_of_the_texts_does_not() -> None:
    assert documents(TEXTS, words, 128, 6, 0) == documents(TEXTS[::-1], words, 128, 6, 0)
    assert documents(TEXTS, words, 128, 6, 0) != documents(TEXTS, words, 128, 6, 1)


@pytest.mark.parametrize(("longest", "tokens"), [(512, 512), (1024, 512), (4096, 512)])
def test_they_are_as_long_as_the_texts_suffice(longest: int, tokens: int) -> None:
    """640 texts of 5 words: 8 documents of half 400 words at most."""
    found = documents(TEXTS, words, longest, 60, 0)
    assert len(found) >= FEWEST
    assert all(tokens <= count < tokens + 10 for count in words(found))


def test_too_few_texts_make_none() -> None:
    assert documents(TEXTS[:20], words, 4096, 60, 0) == []
