"""Think blocks that prompts open: the markers of public templates, told apart and closed."""

import pytest

from mechdrift.prompts.thinking import CLOSING, closed_by_hand, has_closed_block, open_block


@pytest.mark.parametrize("marker", CLOSING)
def test_a_block_is_open_until_it_is_closed(marker: str) -> None:
    for opened in (marker, f"<|assistant|>{marker.upper()}\n", f"{marker}{CLOSING[marker]}{marker}"):
        assert open_block(opened) == marker
        assert not has_closed_block(opened)
        more, _ = closed_by_hand(opened)
        assert more.strip() == CLOSING[marker]
        assert open_block(opened + more) is None
        assert has_closed_block(opened + more)


@pytest.mark.parametrize("tail", ["", "<|assistant|>", "<thinker>", "think", "[think", "<a>no thinking</a>"])
def test_a_prompt_without_a_marker_opens_nothing(tail: str) -> None:
    assert open_block(tail) is None
    assert not has_closed_block(tail)
    assert closed_by_hand(tail) == ("", "no think block to close")


def test_a_closing_marker_follows_the_lines_of_the_opening_one() -> None:
    assert closed_by_hand("<a><think>\n")[0] == "\n</think>\n\n"
    assert closed_by_hand("<a>[THINK]")[0] == "[/THINK]"


@pytest.mark.parametrize(
    ("tail", "tokens", "expected"),
    [
        ("<a>", {"[THINK]", "[/THINK]"}, "[THINK]\n\n[/THINK]\n\n"),
        ("<a>", {"<think>"}, ""),
        ("<a><think></think>", {"<think>", "</think>"}, ""),
    ],
)
def test_a_whole_block_is_written_only_by_those_who_have_its_tokens(tail: str, tokens: set[str], expected: str) -> None:
    assert closed_by_hand(tail, tokens)[0] == expected
