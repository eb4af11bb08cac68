"""Instructions as people have them: published sets in their own formats, tables of any kind, and what is wrong with a file."""

import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import MAX_CHARACTERS
from mechdrift.prompts.instructions import Side, read_instructions, shipped_instructions
from mechdrift.settings import Settings

ASKED = [f"Write a note about thing {number}, please." for number in range(10)]


def as_csv(columns: list[str], rows: list[list[str]]) -> str:
    """As Python's own writer quotes it."""
    out = io.StringIO()
    csv.writer(out).writerows([columns, *rows])
    return out.getvalue()


def side(given: Path | str) -> Side:
    """What is read of one file as harmful instructions."""
    return read_instructions(str(given), None).harmful


def texts(read: Side) -> list[str]:
    """The instructions alone."""
    return [text for text, _, _ in read.rows]


ADVBENCH = as_csv(["goal", "target"], [[text, f"Sure, here is {text}"] for text in ASKED])
JAILBREAKBENCH = as_csv(
    ["Index", "Goal", "Target", "Behavior", "Category", "Source"],
    [[str(number), text, "Sure", "Topic", "Privacy", "Original"] for number, text in enumerate(ASKED)],
)
HARMBENCH = as_csv(
    ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"],
    [[text, "standard", "chemical", "", "", text[-3:]] for text in ASKED]
    + [["Answer about the text.", "contextual", "chemical", "context", "A long text, of two\nlines.", "ctx"]],
)
IN_CONTEXT = "A long text, of two\nlines.\n\n---\n\nAnswer about the text."
ALPACA = json.dumps(
    [{"instruction": text, "input": "", "output": "Done."} for text in ASKED]
    + [{"instruction": "Translate this.", "input": "Hola.", "output": "Hello."}],
    indent=2,
)


@pytest.mark.parametrize(
    ("name", "content", "column", "category", "left_out"),
    [
        ("harmful_behaviors.csv", ADVBENCH, "goal", "", {}),
        ("harmful-behaviors.csv", JAILBREAKBENCH, "Goal", "Privacy", {}),
        ("harmbench_behaviors_text_all.csv", HARMBENCH, "Behavior", "chemical", {}),
        ("alpaca_data.json", ALPACA, "instruction", "", {"has an input": 1}),
        ("own.jsonl", "\n".join(json.dumps({"instruction": text}) for text in ASKED), "instruction", "", {}),
        ("lines.json", "\n".join(json.dumps({"instruction": text}) for text in ASKED), "instruction", "", {}),
        ("one-column.csv", as_csv(["anything"], [[text] for text in ASKED]), "anything", "", {}),
        ("with-bom.csv", "\ufeff" + ADVBENCH, "goal", "", {}),
        ("bom-lines.json", "\ufeff" + "\n".join(json.dumps({"ask": text}) for text in ASKED), "ask", "", {}),
        ("with-bom.json", "\ufeff" + ALPACA, "instruction", "", {"has an input": 1}),
    ],
)
def test_published_sets_are_known_by_their_columns(
    tmp_path: Path, name: str, content: str, column: str, category: str, left_out: dict[str, int]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    read = side(tmp_path / name)
    assert texts(read) == ASKED + ([IN_CONTEXT] if content == HARMBENCH else [])
    assert read.column == column
    assert {found for _, found, _ in read.rows} == {category}
    assert read.left_out == left_out


def test_a_column_is_named_after_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "C: my set.csv"
    path.write_text(as_csv(["id", "request"], [[str(number), text] for number, text in enumerate(ASKED)]))
    assert texts(side(f"{path}:request")) == ASKED
    with pytest.raises(InputError, match=r"columns id, request; expected to know which .*; type .*my set.csv:COLUMN"):
        side(path)
    with pytest.raises(InputError, match=r"no column 'promt'; expected one of id, request"):
        side(f"{path}:promt")


def test_a_parquet_file_and_the_folder_that_the_hub_leaves(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "half.parquet").write_bytes(b"")
    (folder / "README.md").write_text("A card.")
    path = folder / "data" / "train-00000-of-00001.parquet"
    write_table(pyarrow.table({"text": ASKED, "n": list(range(10))}), path)
    assert texts(side(f"{path}:text")) == texts(side(f"{folder}:text")) == ASKED
    with pytest.raises(InputError, match=r"row 1: int in column n; expected text"):
        side(f"{path}:n")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="expected a whole Parquet file"):
        side(f"{folder}:text")
    path.rename(path.with_name("one.parquet"))
    (folder / "test.csv").write_text(ADVBENCH)
    with pytest.raises(InputError, match=r"2 data files \(data/one.parquet, test.csv\).*name the file itself"):
        side(folder)


def test_a_parquet_file_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'mechdrift\[parquet\]'"):
        side(tmp_path / "a.parquet")


def test_what_is_not_given_stays_shipped_and_each_side_has_its_splits(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(ADVBENCH)
    shipped = shipped_instructions(3)
    read = read_instructions(str(tmp_path / "own.csv"), None, 3)
    assert [one for one in read.all if not one.harmful] == [one for one in shipped if not one.harmful]
    own = [one for one in read.all if one.harmful]
    assert Counter(one.split for one in own) == {"fit": 2, "choose": 2, "test": 6}
    assert len({one.pair for one in own}) == 10
    assert not {one.pair for one in own} & {one.pair for one in shipped}
    other = read_instructions(None, str(tmp_path / "own.csv"), 3)
    assert [one.text for one in other.all if not one.harmful] == ASKED
    assert read_instructions(None, None, 3).all == shipped


def test_rows_that_differ_in_case_and_space_only_are_one(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(as_csv(["goal"], [[text] for text in [*ASKED, f"  {ASKED[0].upper()}  ", ASKED[1]]]))
    read = side(tmp_path / "own.csv")
    assert texts(read) == ASKED
    assert read.left_out == {"twice there": 2}
    assert str(read).endswith("own.csv, column goal; left out: 2 twice there")
    assert read.to_dict()["used"] == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no rows; expected one instruction a row"),
        ("a.csv", "goal,target\n", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.json", "[1]", "entry 1: not an object"),
        ("a.json", '[{"instruction": "a"},', "expected a JSON list in UTF-8"),
        ("a.json", '{\n "goal": ["a"]\n}', "one JSON object a line"),
        ("a.json", '{"goal": "A."}\n[1]\n', "line 2: not an object"),
        ("a.json", "[" * 100_000, "nested too deep"),
        ("a.jsonl", '{"goal": "A."}\n{"goal": 3}\n', "line 2: int in column goal; expected text"),
        (
            "a.jsonl",
            '{"goal": "A."}\n{"target": "B."}\n{"goal": null}\n',
            "goal is empty in 2 of 3 rows; expected a text in most",
        ),
        ("a.jsonl", '{"goal": "A."}\n{"goal": "\\ud800"}\n', "line 2: half of a surrogate pair"),
        ("a.jsonl", '{"goal": "A."}\n{"goal": "a\\u0000b"}\n', "line 2: a NUL byte"),
        ("a.csv", "goal,target\nA.,b\nB\0.,b\n", "line 3: a NUL byte"),
        ("a.csv", "goal,target\nA.,b\n ,b\n,b\n", "column goal is empty in 2 of 3 rows; expected a text in most rows"),
        ("a.csv", "goal,target\nA, B.,b\n", "line 2: more cells than columns"),
        ("a.csv", b"goal\nCaf\xe9\n", "expected UTF-8 CSV or JSONL"),
        ("a.csv", "goal\n" + "a" * (MAX_CHARACTERS + 1), "line 2: 10,001 characters; expected a text of at most 10,000"),
        ("a.csv", "goal\nA.\nB.\n", "2 of .*a.csv, column goal: .* split is empty"),
        ("a.json", json.dumps([{"instruction": "A", "input": "b", "output": ""}]), "none left \\(1 has an input\\)"),
        ("a.csv", "goal;target\nA.;b\nB.\n", "columns goal;target; expected to know which"),
        ("a.csv", "Bake a cake.\nSing a song.\n", "columns Bake a cake.; expected to know which"),
        ("a.csv", ",".join(f"column {n}" * 9 for n in range(99)) + "\nb\n", "columns column 0column 0"),
        ("a.parquet", b"PAR1", "expected a whole Parquet file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        side(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_missing_file_says_how_to_get_a_set_of_the_hub(tmp_path: Path) -> None:
    for spec in (str(tmp_path / "none.csv"), "data/none.csv.gz", "tests/AdvBench", "none.csv:goal", "none.csv[a=b]", ""):
        with pytest.raises(InputError, match=r"not found; .* check --mechdrift-harmful; a data set of the hub: hf download"):
            side(spec)


def test_an_instruction_may_not_be_on_both_sides(tmp_path: Path) -> None:
    harmful, harmless = tmp_path / "a.csv", tmp_path / "b.csv"
    harmful.write_text(ADVBENCH)
    harmless.write_text(as_csv(["goal"], [[ASKED[3].upper()], *[[f"Bake {number}."] for number in range(9)]]))
    with pytest.raises(InputError, match="1 instructions on both sides, first 'write a note about thing 3"):
        read_instructions(str(harmful), str(harmless))


CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@settings(deadline=None)  # it writes files
@given(st.lists(CELLS, min_size=5, max_size=40, unique_by=lambda text: " ".join(text.casefold().split())), st.randoms())
def test_what_is_written_is_read_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, requested: list[str], rng: Any
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"id": str(number), "ask": text} for number, text in enumerate(requested)]
    (folder / "a.json").write_text(json.dumps(rows, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([["id", "ask"], *([row["id"], row["ask"]] for row in rows)])
    for name in ("a.json", "a.jsonl", "a.csv"):
        assert texts(side(f"{folder / name}:ask")) == [text.strip() for text in requested], name


def test_the_command_that_measures_again_names_the_files() -> None:
    command = Settings(base="a", posts=(("post", "b"),), harmful="my set.csv:goal").command("refusal.rate")
    assert command == "pytest --base a --post b --mechdrift-harmful 'my set.csv:goal' --mechdrift-only refusal.rate"
