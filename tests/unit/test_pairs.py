"""Pairs of prompts: the same layout in every tokenizer, by rule, and named reasons for what falls out."""

import dataclasses
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts import pair_layout
from mechdrift.prompts import table_pairs as table_pairs_module
from mechdrift.prompts.judgement import SUFFIX
from mechdrift.prompts.pairs import FORMS, Encode, Form, Found, is_knowledge, linked, put_together
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import Fact, FactTable, fact_tables, split_entities, table_statements
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.prompts.written_pairs import read_pairs, written_pairs

TABLES = {table.kind: table for table in fact_tables()}
TOKENIZERS = ("bytes", "organism", "wordpiece", "unigram")


@cache
def tokenizer(name: str) -> Any:
    """Of four sorts: bytes, byte-level BPE, WordPiece, and unigram with SentencePiece's spaces; trained on the tables."""
    if name == "bytes":
        return tiny_tokenizer()
    if name == "organism":
        return load_tokenizer(resolve("organism:base"))
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [fact.sentence(form, fact.object) for table in TABLES.values() for fact in table.facts for form in table.forms]
    texts += [f"{text}{SUFFIX} TRUE" for text in texts[:50]] + [f"{text}{SUFFIX} FALSE" for text in texts[:50]]
    trainer: Any
    if name == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=600, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False
        )
    made.train_from_iterator(texts, trainer)
    if name == "wordpiece":
        special = [("[CLS]", 1), ("[SEP]", 2)]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=made)


def reading(name: str) -> Encode:
    """What pairs are laid out with."""
    return partial(encode, tokenizer(name))


@cache
def found(name: str, kind: str, form: Form, negated: bool = False) -> Found:
    """A table's pairs."""
    return table_pairs(TABLES[kind], reading(name), form, negated=negated)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_pairs_differ_in_the_subject_only(name: str, form: Form) -> None:
    """Checked on the decoded tokens, not by the spans that made them."""
    for kind in ("cities", "animal_classes", "spanish_words"):
        got = found(name, kind, form)
        assert len(got.pairs) >= 20, (kind, got.summary())
        for pair in got.pairs:
            assert len(pair.clean) == len(pair.corrupt) == pair.first + len(pair.columns)
            assert pair.clean[: pair.first] == pair.corrupt[: pair.first]
            assert pair.clean[pair.first] != pair.corrupt[pair.first]
            assert pair.answers[0] != pair.answers[1]
            assert pair.columns[-1] == "last"
            differing = [
                column
                for column, a, b in zip(pair.columns, pair.clean[pair.first :], pair.corrupt[pair.first :], strict=True)
                if a != b
            ]
            assert all(column.startswith("subject[") for column in differing)
            assert len(set(pair.columns)) == len(pair.columns)


def test_columns_are_the_tokens_that_they_are_named_after() -> None:
    """Where every character is a token, a column's letters can be read."""
    for pair in found("bytes", "cities", "judged").pairs[:50]:
        letters = tokenizer("bytes").convert_ids_to_tokens(list(pair.clean[pair.first :]))
        text = "".join(letter for letter, column in zip(letters, pair.columns, strict=True) if column.startswith("object"))
        first, second = pair.words
        value = first.rpartition(" in ")[2].rstrip(".")
        assert text == "".join(tokenizer("bytes").tokenize(value))
        assert second.endswith(f" in {value}.")
        assert [c for c in pair.columns if is_knowledge(c)] == [c for c in pair.columns if c.startswith(("subject", "object"))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", sorted(TABLES))
def test_the_clean_statement_is_true_and_the_corrupt_one_false(kind: str, form: Form) -> None:
    table = TABLES[kind]
    right = {fact.sentence(template, fact.object) for fact in table.facts for template in table.forms}
    lies = {fact.sentence(template, fact.false_object) for fact in table.facts for template in table.forms}
    for pair in found("organism", kind, form).pairs:
        clean, corrupt = pair.words
        assert clean in right
        assert corrupt not in right
        assert not table.facts[0].false_object or corrupt in lies


def test_negated_statements_change_sides() -> None:
    got = found("organism", "cities", "judged", negated=True)
    right = {fact.sentence(form, fact.object) for fact in TABLES["cities"].facts for form in TABLES["cities"].negated_forms}
    assert got.pairs
    assert all(clean not in right and corrupt in right for clean, corrupt in (pair.words for pair in got.pairs))


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_no_entity_is_in_two_units_and_none_of_another_split(kind: str) -> None:
    table = TABLES[kind]
    splits = split_entities((fact.entity for fact in table.facts), 0)
    got = found("organism", kind, "judged")
    taken = Counter(entity for unit in {pair.unit for pair in got.pairs} for entity in unit.split(" / "))
    assert all(count == 1 and splits[entity] == "test" for entity, count in taken.items())
    assert all(count <= 2 for count in Counter(pair.unit for pair in got.pairs).values())
    assert got.entities == sum(split == "test" for split in splits.values())
    assert len(taken) + got.dropped.get(table_pairs_module.NO_PARTNER, 0) == got.entities


def test_most_entities_of_a_large_table_find_a_partner() -> None:
    got = found("organism", "cities", "cloze")
    assert 2 * got.units > 0.9 * got.entities
    assert got.summary().startswith(f"{len(got.pairs)} pairs in {got.units} units of {got.entities} entities")


def test_pairs_are_drawn_by_the_seed() -> None:
    table, read = TABLES["animal_classes"], reading("organism")
    assert table_pairs(table, read, "cloze") == found("organism", "animal_classes", "cloze")
    assert table_pairs(table, read, "cloze", seed=1).pairs != found("organism", "animal_classes", "cloze").pairs


def test_judged_sides_have_the_same_examples_and_ask_for_a_judgement() -> None:
    got = found("organism", "cities", "judged")
    truth, lie = got.pairs[0].answers
    assert {pair.answers for pair in got.pairs} == {(truth, lie)}
    for pair in got.pairs[:40]:
        prompt = tokenizer("organism").decode(pair.clean, skip_special_tokens=True)
        *examples, last = prompt.split("\n")
        assert len(examples) == 4
        assert Counter(line.rpartition(" ")[2] for line in examples) == {"TRUE": 2, "FALSE": 2}
        assert last == pair.words[0] + SUFFIX
        other = tokenizer("organism").decode(pair.corrupt, skip_special_tokens=True)
        assert other == "\n".join([*examples, pair.words[1] + SUFFIX])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_cloze_answers_are_the_tokens_that_follow(name: str) -> None:
    """The prompt and the answer begin the true sentence as it is encoded whole; so does the other answer the other's."""
    for pair in found(name, "animal_classes", "cloze").pairs:
        (whole, other), _ = encode(tokenizer(name), list(pair.words))
        assert tuple(whole[: len(pair.clean) + 1]) == (*pair.clean, pair.answers[0])
        assert tuple(other[: len(pair.corrupt) + 1]) == (*pair.corrupt, pair.answers[0])


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("kind", ["cities", "spanish_words", "numbers"])
def test_as_published_every_true_statement_is_joined_with_a_false_one_of_the_same_object(kind: str, negated: bool) -> None:
    """Objects are those of the table's own statements; false ones recur, and no true one does."""
    table, read = TABLES[kind], reading("organism")
    got = table_pairs(table, read, negated=negated, pairing="statements", start="statement")
    output = [s for s in table_statements(table, 0, negated) if s.split == "test"]
    trues, falses = (Counter(pair.words[side] for pair in got.pairs) for side in (0, 1))
    assert set(trues.values()) == {1}
    assert kind != "cities" or max(falses.values()) > 1
    forms = table.negated_forms if negated else table.forms

    def sentences(entity: str, value: str) -> set[str]:
        return {fact.sentence(form, value) for fact in table.facts if fact.entity == entity for form in forms}

    for pair in got.pairs:
        values = [{s.value for s in output if s.entity == pair.entities[side] and s.label is not bool(side)} for side in (0, 1)]
        assert any(
            all(pair.words[side] in sentences(pair.entities[side], value) for side in (0, 1))
            for value in set.intersection(*values)
        )
    assert {pair.kind for pair in got.pairs} == {f"neg_{kind}" if negated else kind}
    entities = {s.entity for s in output}
    assert len(got.pairs) + sum(got.dropped.values()) == sum(fact.entity in entities for fact in table.facts)


def test_entities_that_recur_are_in_one_unit() -> None:
    """Against a search by hand: from every pair on through all that share an entity with it."""
    got = table_pairs(TABLES["cities"], reading("organism"), pairing="statements")
    assert len(got.pairs) > got.units > 10
    left = list(got.pairs)
    while left:
        reached, grown = set(left[0].entities), True
        while grown:
            more = reached.union(*(pair.entities for pair in left if reached & {*pair.entities}))
            grown, reached = more != reached, more
        inside = [pair for pair in left if reached & {*pair.entities}]
        assert len({pair.unit for pair in inside}) == 1
        left = [pair for pair in left if pair not in inside]
        assert inside[0].unit not in {pair.unit for pair in left}
    assert got.pairs == table_pairs(TABLES["cities"], reading("organism"), pairing="statements").pairs
    assert linked(got.pairs) == got.pairs


def test_negated_statements_share_the_units_of_the_others() -> None:
    both = [table_pairs(TABLES["numbers"], reading("organism"), negated=negated) for negated in (False, True)]
    got = put_together(both)
    assert len(got.pairs) == sum(len(one.pairs) for one in both)
    assert {pair.kind for pair in got.pairs} == {"numbers", "neg_numbers"}
    of: dict[str, set[tuple[str, str]]] = {}
    for pair in got.pairs:
        for entity in pair.entities:
            of.setdefault(entity, set()).add(pair.sampled)
    assert all(len(units) == 1 for units in of.values())
    assert got.units < sum(one.units for one in both)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_columns_from_the_statements_first_token(name: str, form: Form) -> None:
    """The same pairs; what comes before is the statement up to the subject, and no example."""
    early = table_pairs(TABLES["inventors"], reading(name), form, start="statement").pairs
    late = found(name, "inventors", form).pairs
    assert len(early) == len(late) > 20
    for one, other in zip(early, late, strict=True):
        assert (one.clean, one.corrupt, one.unit) == (other.clean, other.corrupt, other.unit)
        assert one.columns[other.first - one.first :] == other.columns
        before = [column for column in one.columns if column.startswith("before")]
        assert before == [f"before[-{n}]" for n in range(len(before), 0, -1)]
        ids = list(one.clean[one.first : one.first + len(before)])
        text = tokenizer(name).decode(ids, skip_special_tokens=True).strip()
        start = one.words[0].partition(one.entities[0])[0]
        assert text.replace(" ", "") in (start.replace(" ", ""), "")  # WordPiece puts a space before a quote
        assert "TRUE" not in text


def test_prompts_beyond_the_context_are_counted() -> None:
    got = found("bytes", "cities", "cloze")
    lengths = sorted(len(pair.clean) for pair in got.pairs)
    context = lengths[len(lengths) // 2]
    short = got.within(context)
    assert max(len(pair.clean) for pair in short.pairs) == context
    assert short.dropped[f"longer than the context of {context} tokens"] == len(got.pairs) - len(short.pairs) > 0
    assert got.within(None) == got.within(10**6) == got


def table(*facts: tuple[str, str], form: str = "The city of {subject} is in {object}.") -> FactTable:
    """A small table; seeds put all of it into the test split by asking for whole ones."""
    return FactTable("small", (form,), (form.replace(" is ", " is not "),), tuple(Fact(s, o, entity=s) for s, o in facts), {})


def all_of(small: FactTable, name: str = "bytes", form: Form = "cloze") -> Found:
    """Pairs of a table, padded so that its facts are of the test split."""
    entities = [fact.entity for fact in small.facts]
    fillers: list[str] = []
    while any(split_entities([*entities, *fillers], 0)[entity] != "test" for entity in entities):
        fillers.append(f"filler {len(fillers)} {'x' * 40}")
        assert len(fillers) < 500
    padded = dataclasses.replace(small, facts=(*small.facts, *(Fact(filler, "nowhere", entity=filler) for filler in fillers)))
    return table_pairs(padded, reading(name), form)


def names(got: Found) -> set[str]:
    """The entities paired, without the padding."""
    return {entity for pair in got.pairs for entity in pair.unit.split(" / ") if not entity.startswith("filler")}


def test_subjects_of_other_lengths_are_not_paired() -> None:
    assert names(all_of(table(("Lodz", "Poland"), ("Pune", "India")))) == {"Lodz", "Pune"}
    assert names(all_of(table(("Lodz", "Poland"), ("Bhilai", "India")))) == set()


def test_subjects_of_one_object_are_not_paired() -> None:
    assert names(all_of(table(("Lodz", "Poland"), ("Pisz", "Poland")))) == set()


def test_an_object_that_begins_another_is_told_apart_by_no_token() -> None:
    """`Guinea.` and `Guineas.`: what follows the shared beginning of the one is not part of it."""
    got = all_of(table(("Lodz", "Guinea"), ("Pune", "Guineas")))
    assert names(got) == set()
    assert got.dropped[pair_layout.NOT_TOLD_APART] == 2


def test_what_two_objects_begin_with_alike_goes_into_the_prompt() -> None:
    got = all_of(table(("Lodz", "South Korea"), ("Pune", "South Africa")))
    assert tokenizer("bytes").decode(got.pairs[0].clean, skip_special_tokens=True).endswith(" is in South ")


def test_too_few_units_are_a_reason_with_counts() -> None:
    got = found("organism", "general_facts", "cloze")
    with pytest.raises(Unmeasurable, match=r"\d+ pairs in \d+ units of 157 entities; .* dropped: no other subject .*; 60 units"):
        got.require(60)
    found("organism", "cities", "cloze").require(60)


WORDS = st.text(alphabet="abcdeé", min_size=1, max_size=5)


@settings(max_examples=30)
@given(
    facts=st.dictionaries(WORDS, st.sampled_from(["un", "uno", "dos", "tres"]), min_size=5, max_size=25), seed=st.integers(0, 9)
)
def test_any_table_is_paired_without_an_exception(facts: dict[str, str], seed: int) -> None:
    """Every pair has one layout, each entity is used once, and everything is counted."""
    small = table(*facts.items())
    for name in ("bytes", "organism"):
        got = table_pairs(small, reading(name), "cloze", seed)
        units = {pair.unit for pair in got.pairs}
        assert got.entities == len([s for s in split_entities(facts, seed).values() if s == "test"])
        assert 2 * len(units) <= got.entities
        for pair in got.pairs:
            a, b = pair.unit.split(" / ")
            assert facts[a] != facts[b]
            assert len(pair.clean) == len(pair.corrupt)


def test_read_pairs_of_both_sorts(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [f"Town {chr(97 + n)} is big.,Town {chr(110 + n)} is big.,,,t{n},towns" for n in range(13)]
    lines += [f"{n} plus 2 is,{n} plus 5 is, {n + 2}, {n + 5},,sums" for n in range(1, 4)]
    path.write_text("\n".join(["clean,corrupt,correct,other,entity,kind", *lines]), encoding="utf-8")
    read = read_pairs(path).all
    assert Counter(pair.kind for pair in read) == {"towns": 13, "sums": 3}
    assert {pair.answers for pair in read if pair.kind == "towns"} == {None}
    assert next(pair for pair in read if pair.kind == "sums").answers == (" 3", " 6")
    got = written_pairs(read, reading("bytes"))
    assert got.dropped == {}
    assert len(got.pairs) == sum(pair.split == "test" for pair in read)
    towns = next(pair for pair in got.pairs if pair.kind == "towns")
    assert towns.columns == ("knowledge", *["others"] * (len(towns.columns) - 2), "last")
    assert all(is_knowledge(column) == (column == "knowledge") for column in towns.columns)


def test_rows_that_share_an_entity_or_a_text_are_one_unit_and_in_one_split(tmp_path: Path) -> None:
    """Towns A and B by their entity, B and C by the false statement, D alone."""
    path = tmp_path / "mine.csv"
    rows = ["A is big.,X is big.,town", "B is big.,Y is big.,town", "C is big.,Y is big.,", "D is big.,Z is big.,"]
    rows += [f"E{n} is big.,F{n} is big.," for n in range(6)]
    path.write_text("\n".join(["clean,corrupt,entity", *rows]), encoding="utf-8")
    for seed in range(5):
        read = read_pairs(path, seed).all
        assert len({pair.entity for pair in read[:3]}) == len({pair.split for pair in read[:3]}) == 1
        assert len({pair.entity for pair in read}) == 8


def test_a_prompt_of_several_lines_is_one_prompt(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [f'"Q:\tWhere is A{n}?\nA:","Q:\tWhere is B{n}?\nA:", x, y' for n in range(5)]
    path.write_text("\n".join(["clean,corrupt,correct,other", *rows]), encoding="utf-8")
    got = written_pairs(read_pairs(path).all, reading("bytes"), start="statement")
    assert len(got.pairs) == 3
    assert all(pair.first == 0 or pair.columns[0] == "others" for pair in got.pairs)


def test_written_pairs_of_other_lengths_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "\n".join(f'{{"clean": "a{n} is", "corrupt": "bbb{n} is", "correct": " x", "other": " y"}}' for n in range(5)), "utf-8"
    )
    got = written_pairs(read_pairs(path).all, reading("bytes"))
    assert got.pairs == ()
    assert got.dropped == {pair_layout.LENGTHS_DIFFER: 3}
    with pytest.raises(
        Unmeasurable, match="0 pairs in 0 units of 3 entities; 3 dropped: clean and corrupt prompt differ in length"
    ):
        got.require(4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("clean\nA.\n", "line 2: no corrupt"),
        ("clean,corrupt\nA.,B.,C\n", "line 2: more cells than columns"),
        ("clean,corrupt\nA.,A.\n", "two different texts"),
        ("clean,corrupt\nA.,\n", "two different texts"),
        ("clean,corrupt,correct,other\nA,B, x,\n", "two different answers, or none"),
        ("clean,corrupt,correct,other\nA,B, x, x\n", "two different answers, or none"),
        ("clean,corrupt\nA.,B\n", "'B' has no period at its end"),
        ("clean,corrupt\n\xff.,B.\n", "UTF-8"),
        ('clean,corrupt\n"A\nis.",B.\n', "line 3: 'A\\\\nis.' is no single line; expected one sentence"),
        ("clean,corrupt\nA\tis.,B.\n", "is no single line; expected one sentence, without tabs"),
        ("clean,corrupt\nA\x00.,B.\n", r"clean holds the character '\\x00'; expected printable text"),
        ("clean,corrupt,correct,other\nA,B, \x1b[2J, y\n", "correct holds the character"),
        ("clean,corrupt,kind\nA.,B.,x\nA.,C.,y\n", "line 3: entity 'A.' is of kind 'x' and of kind 'y'"),
    ],
)
def test_a_bad_pairs_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as error:
        read_pairs(path)
    assert "pairs file" in str(error.value)
    with pytest.raises(InputError, match="not found"):
        read_pairs(tmp_path / "none.csv")


@pytest.mark.parametrize("value", ["[1]", "true", '{"a": 1}', '"\\ud800."'])
def test_a_jsonl_cell_that_is_no_text_is_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"clean": {value}, "corrupt": "B."}}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: clean (is|holds the character)"):
        read_pairs(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_pairs_are_read_of_every_format_and_empty_rows_are_counted(tmp_path: Path, name: str) -> None:
    rows = [{"clean": f"A{n} is", "corrupt": f"B{n} is", "correct": " x", "other": " y"} for n in range(9)]
    table = pandas.DataFrame([*rows, dict.fromkeys(rows[0])])
    if "json" in name:
        table.to_json(tmp_path / name, orient="records", lines="jsonl" in name)
    elif name == "a.parquet":
        table.to_parquet(tmp_path / name)
    else:
        table.to_csv(tmp_path / name, index=False, sep="," if name == "a.csv" else "\t")
    read = read_pairs(tmp_path / name)
    assert [(pair.clean, pair.corrupt, pair.answers) for pair in read.all] == [
        (row["clean"], row["corrupt"], (" x", " y")) for row in rows
    ]
    assert str(read.used) == f"9 of {tmp_path / name}; left out: 1 empty"


def test_judged_pairs_need_examples(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("clean,corrupt\nA is big.,B is big.\nC is big.,D is big.\n", encoding="utf-8")
    with pytest.raises(Unmeasurable, match="a few-shot prompt needs 2"):
        written_pairs(read_pairs(path).all, reading("bytes"))
