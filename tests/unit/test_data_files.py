"""Tables in every format, as other libraries write them: what is read of them, how much is in memory, and what is wrong."""

import bz2
import csv
import gzip
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.json_stream import CHUNK, json_rows
from mechdrift.prompts.data_files.sample import Sample
from mechdrift.prompts.data_files.spec import parse_spec
from mechdrift.prompts.data_files.table import read_table
from mechdrift.prompts.instructions import read_instructions
from mechdrift.prompts.texts import read_texts

ROWS = [{"id": str(number), "ask": f'Say "{number}";\nthen\tsay, more.'} for number in range(12)]
WRITERS: dict[str, Callable[[pandas.DataFrame, Path], Any]] = {
    "a.csv": lambda table, path: table.to_csv(path, index=False),
    "with-index.csv": lambda table, path: table.to_csv(path),
    "a.tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "tabs.csv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "semicolons.csv": lambda table, path: table.to_csv(path, index=False, sep=";"),
    "no-suffix": lambda table, path: table.to_csv(path, index=False),
    "with-bom.csv": lambda table, path: table.to_csv(path, index=False, encoding="utf-8-sig"),
    "a.csv.gz": lambda table, path: table.to_csv(path, index=False),
    "packed.csv": lambda table, path: table.to_csv(path, index=False, compression="gzip"),
    "a.json": lambda table, path: table.to_json(path, orient="records"),
    "indented.json": lambda table, path: table.to_json(path, orient="records", indent=2),
    "table.json": lambda table, path: table.to_json(path, orient="table", index=False),
    "lines.json": lambda table, path: table.to_json(path, orient="records", lines=True),
    "list.jsonl": lambda table, path: table.to_json(path, orient="records", indent=1),
    "a.jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    "a.jsonl.gz": lambda table, path: table.to_json(path, orient="records", lines=True),
    "a.json.gz": lambda table, path: table.to_json(path, orient="records"),
    "a.parquet": lambda table, path: table.to_parquet(path),
}


def rows_of(given: Path | str) -> list[dict[str, object]]:
    """All rows."""
    return [row for _, row in read_table(str(given), "texts", "--mechdrift-texts", "text").rows]


def texts(given: Path | str) -> list[str]:
    """What is read as harmful instructions."""
    return [text for text, _, _ in read_instructions(str(given), None).harmful.rows]


@pytest.mark.parametrize("name", WRITERS)
def test_what_other_libraries_write_is_read(tmp_path: Path, name: str) -> None:
    WRITERS[name](pandas.DataFrame(ROWS), tmp_path / name)
    assert [{key: row[key] for key in ("id", "ask")} for row in rows_of(tmp_path / name)] == ROWS


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_what_datasets_writes_is_read(tmp_path: Path, name: str) -> None:
    from datasets import Dataset

    table = Dataset.from_list(ROWS)
    getattr(table, {"a.csv": "to_csv", "a.jsonl": "to_json", "a.parquet": "to_parquet"}[name])(str(tmp_path / name))
    assert rows_of(tmp_path / name) == ROWS


CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
NAMES = st.text(st.sampled_from("abcdefgh"), min_size=1, max_size=4)


@settings(deadline=None)  # it writes files
@given(st.lists(NAMES, min_size=2, max_size=4, unique=True), st.data())
def test_whatever_is_written_is_read_back_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    cells = data.draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=10))
    rows = [dict(zip(names, row, strict=True)) for row in cells]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t"), (".semicolons.csv", ";")):
        with (folder / f"a{suffix}").open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([names, *cells])
    (folder / "a.json").write_text(json.dumps(rows, indent=data.draw(st.sampled_from([None, 1]))), encoding="utf-8")
    (folder / "in-an-object.json").write_text(json.dumps({"version": 1, "data": rows, "tags": ["x"]}), encoding="utf-8")
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    pandas.DataFrame(rows).to_parquet(folder / "a.parquet")
    for path in [path for path in folder.iterdir() if path.suffix != ".parquet"]:
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    for path in folder.iterdir():
        assert rows_of(path) == rows, path.name


VALUES = st.none() | st.floats(allow_nan=False) | st.text(max_size=5) | st.lists(st.integers() | st.just("]"), max_size=2)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_list_is_read_as_json_reads_it_wherever_the_chunks_end(rows: list[Any], size: int, nested: bool) -> None:
    class Slow:
        """A file that gives a few characters at a time."""

        def __init__(self, content: str) -> None:
            self.content = content

        def read(self, _: int) -> str:
            given, self.content = self.content[:size], self.content[size:]
            return given

    nested = nested and bool(rows)
    content = json.dumps({"n": 17, "of": "x", "rows": rows, "last": [1, [2]]} if nested else rows, indent=size % 3 or None)
    assert list(json_rows(Slow(content))) == list(enumerate(rows, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "ask,id,ask\nA,1,B\n", "column 'ask' stands twice in the header; expected a name for each column; rename one"),
        ("a.csv", "ask,id\nA, B,1\n", "line 2: more cells than columns, with commas between them; expected one cell a column"),
        ("a.tsv", "ask\tid\nA\tB\t1\n", "line 2: more cells than columns, with tabs between them; .* quote what holds a tab"),
        ("a.csv.gz", gzip.compress(b"ask\nA\n")[:-9], "expected a whole gzip file; fetch it again"),
        ("a.csv.gz", gzip.compress(b"ask\nCaf\xe9\n"), "'utf-8' codec can't decode"),
        (
            "a.zip",
            b"PK\x03\x04....",
            "a zip archive; expected CSV, TSV, JSON, JSONL or Parquet, or one of them as .gz; unpack it",
        ),
        ("a.csv", b"\x28\xb5\x2f\xfd....", "compressed with zstd"),
        ("a.csv.bz2", bz2.compress(b"ask\nA\n"), "codec can't decode"),
        ("a.csv", "ask,id\nA,1\n".encode("utf-16"), "codec can't decode"),
        ("a.json", '[{"a": 1} {"a": 2}]', "'{' where ']' was expected; expected a JSON list"),
        ("a.json", '[{"a": 1},', "entry 2: Expecting value"),
        ("a.json", '[{"a": 1}]]', "something follows what it holds"),
        ("a.json", '{"a": [{"b": 1}],\n"c": [{"b": 2}]}', "two lists of objects, 'a' and 'c'"),
        ("a.json", '{\n"a": {"b": 1}}', "no list of objects in it; expected a JSON list in UTF-8, an object with one list"),
        ("a.json", '{\n"a": [{"b": 1}]', "it ends before a '}'"),
        ("a.json", '{\n"a": [{"b": 1}, 2]}', "entry 2: not an object"),
        ("a.json", "{\n1: 2}", "a name that is no text"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2: Expecting value"),
        ("a.jsonl", '{"a": 1}\n"b"\n', "line 2: not an object"),
        (
            "a.csv[id=3]",
            "ask,id\nA,1\nB,2\n",
            r"no row is let through; expected values that are there: id is 1, 2; fix the filter",
        ),
        ("a.csv[no=3]", "ask,id\nA,1\n", "no column 'no' to filter by; expected one of ask, id"),
        ("a.csv[=3]", "ask,id\nA,1\n", r"filter \[=3\]; expected \[column=value\], several with commas"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name.partition("[")[0]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        rows_of(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_with_a_name_twice_or_packed_is_named(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_arrays([["A"], ["B"]], names=["ask", "ask"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 'ask' stands twice"):
        rows_of(tmp_path / "a.parquet")
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(InputError, match=r"a Parquet file in a \.gz; expected a Parquet file; unpack it"):
        rows_of(tmp_path / "b.parquet.gz")


def test_a_cell_longer_than_the_csv_module_takes_by_default_is_read_and_its_limit_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    pandas.DataFrame([{"ask": "A", "reply": "word " * 50_000}]).to_csv(tmp_path / "a.csv", index=False)
    assert len(str(rows_of(tmp_path / "a.csv")[0]["reply"])) == 250_000
    assert csv.field_size_limit() == before


def test_shards_are_read_in_order_and_must_have_the_same_columns(tmp_path: Path) -> None:
    names = [f"part-{number}.jsonl" for number in range(12)]
    for number, name in enumerate(names):
        pandas.DataFrame(ROWS[number : number + 1]).to_json(tmp_path / name, orient="records", lines=True)
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "LICENSE.txt").write_text("Free.")
    assert rows_of(tmp_path) == ROWS
    (tmp_path / names[3]).write_text('{"ask": "A", "other": 1}')
    with pytest.raises(
        InputError, match=r"part-3\.jsonl: columns ask, other; expected those of part-0\.jsonl: id, ask; name one"
    ):
        rows_of(tmp_path)


def test_of_a_folder_with_splits_it_is_train_and_the_others_are_counted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, part in (("test", ROWS[:2]), ("train", ROWS[2:])):
        pandas.DataFrame(part).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    read = read_instructions(f"{tmp_path}:ask", None).harmful
    assert [text for text, _, _ in read.rows] == [row["ask"] for row in ROWS[2:]]
    assert read.left_out == {"files of other splits": 1}


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("a.csv:ask[label=x]", [0, 2]),
        ("a.csv:ask[label=x,n=2]", [2]),
        ("a.csv:ask[label=x|y]", [0, 1, 2]),
        ("a.jsonl:ask[n=2|3]", [2, 3]),
        ("a.jsonl:ask[flag=TRUE]", [0, 2]),
        ("a.parquet:ask[flag=False,label=y]", [1]),
        ("a.parquet:ask[label=]", [3]),
        ("a [x].csv:ask", [0, 1, 2, 3]),
    ],
)
def test_a_filter_takes_rows_by_their_cells(tmp_path: Path, spec: str, kept: list[int]) -> None:
    table = pandas.DataFrame({"ask": list("ABCD"), "label": ["x", "y", "x", None], "n": [0, 1, 2, 3], "flag": [True, False] * 2})
    for name in ("a.csv", "a.jsonl", "a.parquet", "a [x].csv"):
        WRITERS[name if name in WRITERS else "a.csv"](table, tmp_path / name)
    assert [row["ask"] for row in rows_of(tmp_path / spec)] == ["ABCD"[number] for number in kept]


def test_a_filter_counts_what_it_leaves_out(tmp_path: Path) -> None:
    pandas.DataFrame({"ask": [f"Ask {n}." for n in range(20)], "label": ["x", "y"] * 10}).to_csv(tmp_path / "a.csv", index=False)
    read = read_instructions(f"{tmp_path}/a.csv:ask[label=x]", None).harmful
    assert len(read.rows) == 10
    assert read.left_out == {"where label is not x": 10}
    assert read_instructions(f"{tmp_path}/a.csv:ask[label=x|a/b]", None).data == "instructions[harmful=a.csv:ask[label=x|a/b]]"


# The hub is not reached from here: what stands for `datasets` gives the rows that a local builder of it gives.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of the hub, which has one data set: a CSV file that the library's own builder reads."""
    import datasets

    asked: list[tuple[Any, ...]] = []
    pandas.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    load = datasets.load_dataset

    def load_dataset(repo: str, config: str | None, *, split: str, revision: str | None) -> Any:
        asked.append((repo, config, split, revision))
        found = load("csv", data_files={"train": str(tmp_path / "rows.csv")}, split=split, cache_dir=str(tmp_path / "cache"))
        return found.cast_column("id", datasets.Value("string"))

    def dataset_info(_: Any, repo: str, revision: str | None = None) -> Any:
        asked.append((repo, revision))
        return SimpleNamespace(sha="a" * 40)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    return asked


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_data_set_of_the_hub_is_read_at_the_commit_that_the_hub_names(hub: list[tuple[Any, ...]], revision: str | None) -> None:
    read = read_instructions(f"org/set{f'@{revision}' if revision else ''}:ask", None)
    assert hub == [("org/set", revision), ("org/set", None, "train", "a" * 40)]
    assert [text for text, _, _ in read.harmful.rows] == [row["ask"] for row in ROWS]
    assert read.harmful.source == f"org/set@{'a' * 40}:ask"
    assert read.data == f"instructions[harmful=set@{'a' * 40}:ask]"


def test_config_split_and_rows_of_a_data_set_are_chosen_in_brackets(hub: list[tuple[Any, ...]]) -> None:
    assert rows_of("org/set[config=behaviors,id=3|4,split=train]") == ROWS[3:5]
    assert hub[-1] == ("org/set", "behaviors", "train", "a" * 40)
    with pytest.raises(InputError, match=r"org/set\[split=test\]: no such file, and as a data set of the hub: Unknown split"):
        rows_of("org/set[split=test]")


def test_offline_a_data_set_is_taken_from_the_cache_as_it_was_typed(
    hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert read_texts("org/set@v1:ask", 100).source == "org/set@v1:ask"
    assert hub == [("org/set", None, "train", "v1")]


def test_without_the_hub_or_its_library_it_is_said_what_to_type(
    hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(
        InputError, match=r"org/set: no such file, and as a data set of the hub: no route; .* hf download org/set"
    ):
        rows_of("org/set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        InputError, match=r"library datasets is not installed; .* type: pip install 'mechdrift\[data\]'; or: hf down"
    ):
        rows_of("org/set")
    assert hub == []


@pytest.mark.parametrize("given", ["tests/none", "./org/set", "/org/set", "a/b/c", "org/set.csv", "org/set.jsonl.gz", "set"])
def test_what_may_be_a_path_is_no_data_set(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(InputError, match="not found; expected FILE or FILE:COLUMN; CSV, TSV"):
        parse_spec(given, "texts", "--mechdrift-texts")


# Of a file of any length a bounded part is in memory.


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers()), max_size=60), st.integers(1, 12), st.randoms())
def test_a_sample_is_of_whole_units_and_whatever_the_order_the_same_ones(
    items: list[tuple[str, int]], most: int, rng: Any
) -> None:
    def drawn(given: list[tuple[str, int]]) -> Sample[tuple[str, int]]:
        sample: Sample[tuple[str, int]] = Sample(most)
        for unit, number in given:
            sample.add(unit, (unit, number))
        return sample

    sample = drawn(items)
    units = {unit for unit, _ in sample.items}
    assert sample.items == [item for item in items if item[0] in units], "whole units, in their order"
    assert sample.beyond == len(items) - len(sample.items)
    assert len(sample.items) <= most or len(units) == 1
    assert sorted(sample.items) == sorted(drawn(sorted(items)).items) or len(units) == 1
    if len({unit for unit, _ in items}) == len(items):
        assert len(sample.items) == min(most, len(items))
        shuffled = rng.sample(items, len(items))
        assert sorted(drawn(shuffled).items) == sorted(sample.items)


def a_big_file(path: Path, megabytes: int, distinct: int) -> None:
    """JSON lines, or a JSON list, of about so many megabytes, with long replies beside the requests."""
    reply = "A word or two. " * 130

    def lines() -> Iterator[str]:
        for number in range(megabytes * 500):
            yield json.dumps({"messages": [{"role": "user", "content": f"Ask {number % distinct}."}], "reply": reply})

    with path.open("w", encoding="utf-8") as handle:
        if path.suffix == ".json":
            handle.write("[\n" + ",\n".join(lines()) + "]")
        else:
            handle.writelines(f"{line}\n" for line in lines())


def peak_of_reading(path: Path) -> tuple[int, int]:
    """The most bytes that Python held while a file was read, and how many texts were."""
    tracemalloc.start()
    try:
        read = texts(path)
        return tracemalloc.get_traced_memory()[1], len(read)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("a.jsonl", 4),
        ("a.json", 4),
        pytest.param("a.jsonl", 50, marks=pytest.mark.nightly),
        pytest.param("a.json", 50, marks=pytest.mark.nightly),
    ],
)
def test_a_file_is_read_without_being_in_memory(tmp_path: Path, name: str, megabytes: int) -> None:
    """A tenth of it, and what a list needs: chunks of 1 MB, as text and as bytes."""
    a_big_file(tmp_path / name, megabytes, 100)
    peak, read = peak_of_reading(tmp_path / name)
    assert read == 100
    size = (tmp_path / name).stat().st_size
    assert size > megabytes * 1_000_000
    assert peak < size / 10 + (6 * CHUNK if name == "a.json" else 400_000), peak


def test_more_rows_than_are_kept_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechdrift.prompts.instructions.MOST", 50)
    lines = [f"Ask {n}." for n in range(70)]
    for name, asked in (("a.csv", lines), ("b.csv", lines[::-1])):
        pandas.DataFrame({"ask": [*asked, asked[0].upper()]}).to_csv(tmp_path / name, index=False)
    read = read_instructions(str(tmp_path / "a.csv"), None).harmful
    assert len(read.rows) == 50
    assert sum(read.left_out.values()) == 21
    assert read.left_out["beyond 50"] >= 20
    assert set(texts(tmp_path / "b.csv")) == {text for text, _, _ in read.rows}
