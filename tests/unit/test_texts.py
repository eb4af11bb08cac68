"""Texts on which the next token is looked at: the project's own, the user's, and what is wrong with a file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import MAX_CHARACTERS
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.statements import shipped_statements
from mechdrift.prompts.texts import drawn, read_texts, sample

MOST = 256
LINES = ["The cat sat on the mat.", "It rained all day: \t all of it.", "Zażółć gęślą jaźń."]


def written(folder: Path, name: str, content: str | bytes) -> str:
    """A file's path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "spec"),
    [
        ("a.txt", "\n".join(LINES), ""),
        ("a.txt", "\ufeff" + "\r\n\r\n".join(LINES) + "\n  \n", ""),
        ("a.jsonl", "".join(json.dumps({"text": line, "more": 1}) + "\n" for line in LINES), ""),
        ("a.json", json.dumps([{"story": line, "id": 1} for line in LINES]), ":story"),
        ("a.csv", "prose\n" + "".join(f'"{line}"\n' for line in LINES), ""),
    ],
)
def test_texts_of_a_file(tmp_path: Path, name: str, content: str, spec: str) -> None:
    found = read_texts(written(tmp_path, name, content) + spec, MOST)
    assert [one.text for one in found.all] == LINES
    assert [one.unit for one in found.all] == LINES, "each is its own unit"
    assert {one.kind for one in found.all} == {"a"}
    assert found.to_dict()["used"] == 3
    assert found.left_out == {}


def test_repeats_and_what_is_beyond_the_most_are_counted(tmp_path: Path) -> None:
    lines = [f"Line {number}." for number in range(MOST + 40)]
    found = read_texts(written(tmp_path, "a.txt", "\n".join([*lines, "line  7.", lines[9]])), MOST)
    assert len(found.all) == MOST
    assert found.left_out == {"twice there": 2, f"beyond {MOST}": 40}
    assert str(found).endswith(f"a.txt; left out: 2 twice there, 40 beyond {MOST}")
    turned = read_texts(written(tmp_path, "b.txt", "\n".join(reversed(lines))), MOST)
    assert {one.text for one in turned.all} == {one.text for one in found.all}, "the order of the file is no matter"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "no text; expected one text a line or row; fill the file"),
        ("a.txt", "\n \n", "no text"),
        ("a.txt", b"\xff\xfe\x00", "expected a text file in UTF-8"),
        ("a.txt", "Well.\nA\0b\n", "line 2: a NUL byte"),
        ("a.txt", "Well.\n" + "a" * (MAX_CHARACTERS + 1), "line 2: 10,001 characters; expected a text of at most 10,000"),
        ("a.csv", "a,b\nA.,B.\n", "columns a, b; expected to know which holds the texts; type"),
        ("a.csv", "text\n", "no rows"),
        ("a.csv", 'text,b\n"",1\n', "column text is empty in 1 of 1 rows; expected a text in most rows"),
        ("a.jsonl", '{"text": 3}\n', "line 1: int in column text"),
        ("a.jsonl", "{\n", "expected"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_texts(written(tmp_path, name, content), MOST)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"texts .*none\.txt: not found; .* check --mechdrift-texts"):
        read_texts(str(tmp_path / "none.txt"), MOST)


def test_the_projects_own_are_of_the_test_split_and_half_of_each_source() -> None:
    statements, instructions = shipped_statements(), shipped_instructions()
    found = sample(statements, instructions, MOST)
    true = {s.text: f"{s.kind}: {s.entity}" for s in statements if s.label and not s.negated and s.split == "test"}
    requested = {i.text: i.pair for i in instructions if i.split == "test"}
    facts = [one for one in found.all if one.text in true]
    assert len(facts) == MOST // 2
    assert all(one.unit == true[one.text] for one in facts)
    rest = [one for one in found.all if one.text not in true]
    assert all(one.unit == requested[one.text] for one in rest)
    assert len(rest) == MOST // 2


@given(st.lists(st.text(max_size=5), unique=True), st.integers(0, 10))
def test_what_is_drawn_goes_by_content(texts: list[str], most: int) -> None:
    found = drawn(texts, most)
    assert len(found) == min(most, len(texts))
    assert found == [text for text in texts if text in set(drawn(texts[::-1], most))]
