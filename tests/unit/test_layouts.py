"""Published sets in their own layouts, in words of our own, as the usual writers write them: what is taken, what left out."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from mechdrift.errors import InputError
from mechdrift.prompts.instructions import Side, read_instructions
from mechdrift.prompts.texts import read_texts

ASKED = [f"Write a note about thing {number}, please." for number in range(10)]
SAFE = [f"How do I look after plant {number}?" for number in range(10)]
ANSWER = {"role": "assistant", "content": "Gladly."}
ABOUT = "A passage of\nsome length."
SYSTEM = {"role": "system", "content": "Be brief."}
AROUND = [SYSTEM, {"role": "user", "content": ASKED[0]}, ANSWER, {"role": "user", "content": "More."}]
PARTS = [{"type": "text", "text": "Write a note"}, {"type": "text", "text": "about parts."}]
IMAGE = [{"type": "text", "text": "What is this?"}, {"type": "image", "image": "a.png"}]


def user(content: Any) -> dict[str, Any]:
    """A turn."""
    return {"role": "user", "content": content}


def shuffled_in(*tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of several sorts by turns."""
    return [row for rows in zip(*tables, strict=True) for row in rows]


ALPACA = [{"instruction": text, "input": "", "output": "Done."} for text in ASKED] + [
    {"instruction": "Shorten this.", "input": ABOUT, "output": "A passage."}
]
DOLLY = [{"instruction": text, "context": "", "response": "Done.", "category": "open_qa"} for text in ASKED] + [
    {"instruction": "Shorten this.", "context": ABOUT, "response": "A passage.", "category": "closed_qa"}
]
MESSAGES = [{"id": text[-10:], "messages": [user(text), ANSWER], "source": "own/notes"} for text in ASKED]
SHAREGPT = [{"id": 1, "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Done."}]} for text in ASKED]
SORRY = [
    {"question_id": number, "category": "7", "turns": [text], "prompt_style": style}
    for number, text in enumerate(ASKED)
    for style in ("base", "slang", "caesar")
]
HARMBENCH = [
    {
        "Behavior": text,
        "FunctionalCategory": "contextual" if number == 3 else "standard",
        "SemanticCategory": "illegal",
        "Tags": "",
        "ContextString": ABOUT if number == 3 else "",
        "BehaviorID": f"b{number}",
    }
    for number, text in enumerate(ASKED)
]
JAILBREAKBENCH = [
    {"Index": n, "Goal": text, "Target": "Sure", "Behavior": "B", "Category": "Fraud", "Source": "Own"}
    for n, text in enumerate(ASKED)
]
STRONGREJECT = [{"category": "Fraud", "source": "custom", "forbidden_prompt": text} for text in ASKED]
XSTEST = [
    {"id": f"v{number}", "prompt": text, "type": "homonyms", "label": label, "focus": "thing", "note": ""}
    for number, (harmful, safe) in enumerate(zip(ASKED, SAFE, strict=True))
    for text, label in ((harmful, "unsafe"), (safe, "safe"))
]
WILDJAILBREAK = [
    {"vanilla": text, "adversarial": "", "completion": "No.", "data_type": kind}
    for harmful, safe in zip(ASKED, SAFE, strict=True)
    for text, kind in ((harmful, "vanilla_harmful"), (safe, "vanilla_benign"))
]
WRITTEN_IN_CONTEXT = [f"{ABOUT}\n\n---\n\n{text}" if number == 3 else text for number, text in enumerate(ASKED)]


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """A file, as pandas or `datasets` write it."""
    path = folder / name
    if path.suffix == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".tsv":
        pandas.DataFrame(rows).to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(str(path))
    else:
        pandas.DataFrame(rows).to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return path


def side(given: Path | str, harmful: bool = True) -> Side:
    """What is read of one file."""
    return read_instructions(str(given), None).harmful if harmful else read_instructions(None, str(given)).harmless


@pytest.mark.parametrize(
    ("name", "rows", "column", "taken", "category", "left_out"),
    [
        ("alpaca.json", ALPACA, "instruction", ASKED, "", {"has an input": 1}),
        ("alpaca.parquet", ALPACA, "instruction", ASKED, "", {"has an input": 1}),
        ("dolly.jsonl", DOLLY, "instruction", ASKED, "open_qa", {"has a context": 1}),
        ("dolly.csv", DOLLY, "instruction", ASKED, "open_qa", {"has a context": 1}),
        ("tulu.jsonl", MESSAGES, "messages", ASKED, "own/notes", {}),
        ("tulu.parquet", MESSAGES, "messages", ASKED, "own/notes", {}),
        ("sharegpt.json", SHAREGPT, "conversations", ASKED, "", {}),
        ("sharegpt.parquet", SHAREGPT, "conversations", ASKED, "", {}),
        (
            "mt-bench.jsonl",
            [{"category": "writing", "turns": [text, "Shorter."]} for text in ASKED],
            "turns",
            ASKED,
            "writing",
            {},
        ),
        ("sorry.jsonl", SORRY, "turns", ASKED, "7", {"where prompt_style is not base": 20}),
        ("sorry.parquet", SORRY, "turns", ASKED, "7", {"where prompt_style is not base": 20}),
        ("trl.jsonl", [{"prompt": [user(text)], "completion": [ANSWER]} for text in ASKED], "prompt", ASKED, "", {}),
        ("trl.parquet", [{"prompt": text, "chosen": "a", "rejected": "b"} for text in ASKED], "prompt", ASKED, "", {}),
        ("harmbench.csv", HARMBENCH, "Behavior", WRITTEN_IN_CONTEXT, "illegal", {}),
        ("harmbench.parquet", HARMBENCH, "Behavior", WRITTEN_IN_CONTEXT, "illegal", {}),
        ("jbb.csv", JAILBREAKBENCH, "Goal", ASKED, "Fraud", {}),
        ("strongreject.csv", STRONGREJECT, "forbidden_prompt", ASKED, "Fraud", {}),
        ("xstest.csv", XSTEST, "prompt", ASKED, "", {"where label is safe": 10}),
        ("or-bench.csv", [{"prompt": text, "category": "fraud"} for text in ASKED], "prompt", ASKED, "fraud", {}),
        ("advbench.csv", [{"goal": text, "target": "Sure"} for text in ASKED], "goal", ASKED, "", {}),
        ("wild.tsv:vanilla", WILDJAILBREAK, "vanilla", ASKED, "", {"where data_type is vanilla_benign": 10}),
    ],
)
def test_a_published_layout_is_read_by_its_shape(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], column: str, taken: list[str], category: str, left_out: dict[str, int]
) -> None:
    written(tmp_path, name.partition(":")[0], rows)
    read = side(tmp_path / name)
    assert [text for text, _, _ in read.rows] == taken
    assert {found for _, found, _ in read.rows} == {category}
    assert read.column == column
    assert read.left_out == left_out


def test_rows_of_the_other_side_are_left_out_on_both_sides(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", XSTEST)
    both = read_instructions(str(path), str(path))
    assert [text for text, _, _ in both.harmful.rows] == ASKED
    assert [text for text, _, _ in both.harmless.rows] == SAFE
    assert both.harmless.left_out == {"where label is unsafe": 10}
    with pytest.raises(InputError, match=r"none left \(10 where label is safe\)"):
        side(written(tmp_path, "safe.csv", [row for row in XSTEST if row["label"] == "safe"]))
    chosen = side(f"{path}[label=safe]")
    assert [text for text, _, _ in chosen.rows] == SAFE, "who filters by it has chosen"


def test_a_column_that_may_tell_the_sides_apart_must_be_chosen_by(tmp_path: Path) -> None:
    rows = [{"prompt": text, "label": number % 2} for number, text in enumerate([*ASKED, *SAFE])]
    path = written(tmp_path, "a.csv", rows)
    with pytest.raises(
        InputError,
        match=r"column label is 0 or 1, and may tell harmful from harmless; .*; type '.*a.csv\[label=0\]' or '.*\[label=1\]'",
    ):
        side(path)
    assert len(side(f"{path}[label=1]").rows) == 10
    assert len(side(f"{path}[label=0|1]").rows) == 20
    assert len(side(written(tmp_path, "b.csv", [row | {"label": 1} for row in rows])).rows) == 20, "of one class"


def test_of_a_conversation_it_is_what_the_user_says_first(tmp_path: Path) -> None:
    rows = [AROUND, [user(PARTS), ANSWER], [ANSWER, user("After an answer.")], [user(IMAGE)], [ANSWER], [], [user(None)]]
    rows += [[user(text)] for text in ASKED[1:]]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    read = side(path)
    assert [text for text, _, _ in read.rows] == [ASKED[0], "Write a note\nabout parts.", "After an answer.", *ASKED[1:]]
    assert read.left_out == {"with more than text in it": 1, "without a user's turn": 2, "empty": 1}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([["a"]], "line 2: a list of list in column messages; expected a list of texts, of {role, content} or of {from, value}"),
        ([1, 2], "line 2: a list of int in column messages"),
        ([{"speaker": "user", "text": "A"}], "line 2: a list of dict in column messages"),
        ({"role": "user"}, "line 2: dict in column messages; expected text"),
        ([user(3)], "line 2: int in column messages"),
        (
            "[{'role': 'user', 'content': 'A'}]",
            "line 2: a list written as text in column messages; .* save it as JSONL or Parquet",
        ),
        ([user("a\0b")], "line 2: a NUL byte"),
        ([user("a\ud800b")], "line 2: half of a surrogate pair"),
    ],
)
def test_a_cell_that_is_no_conversation_is_named(tmp_path: Path, cell: Any, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"messages": one}) for one in ([user("A.")], cell)))
    with pytest.raises(InputError, match=message):
        side(path)


def test_a_tenth_of_empty_rows_is_counted_and_most_of_them_are_an_error(tmp_path: Path) -> None:
    rows = [{"prompt": text, "category": None} for text in [*ASKED, None, "  "]]
    for name in ("a.csv", "a.jsonl", "a.parquet", "a.json"):
        read = side(written(tmp_path, name, rows))
        assert [text for text, _, _ in read.rows] == ASKED
        assert {category for _, category, _ in read.rows} == {""}
        assert read.left_out == {"empty": 2}
    path = written(tmp_path, "b.csv", rows[8:])
    assert pandas.read_csv(path).prompt.isna().sum() == 1
    path.write_text("prompt,category\n" + "".join(f"{text},x\n" for text in ["A.", "", "", "B.", ""]))
    with pytest.raises(
        InputError, match="column prompt is empty in 3 of 5 rows; expected a text in most rows; name another column"
    ):
        side(path)


def test_a_text_file_has_one_request_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(ASKED))
    assert [text for text, _, _ in side(tmp_path / "a.txt").rows] == ASKED


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.csv"])
def test_a_document_in_the_place_of_a_request_is_counted_unless_it_may_be_an_open_quote(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, [{"prompt": text, "n": 1} for text in [*ASKED, "long " * 3000]])
    if name == "a.csv":
        with pytest.raises(InputError, match=r"line 12: 14,999 characters; .* or close an open quote"):
            side(path)
    else:
        read = side(path)
        assert [text for text, _, _ in read.rows] == ASKED
        assert read.left_out == {"longer than 10,000 characters": 1}
        assert read_texts(f"{path}:prompt", 100).left_out == {"longer than 10,000 characters": 1}
