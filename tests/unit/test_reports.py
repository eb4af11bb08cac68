"""Reports of records: what they say, in which order, and that no text of a record breaks out of them."""

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt
from recorded import HOSTILE, against, full, record, row, waiver, written
from safetensors.numpy import save_file

from mechdrift.commands.cli import main
from mechdrift.errors import InputError
from mechdrift.findings.refusal.outcomes import PLAIN, Outcomes, RefusalReadings
from mechdrift.findings.refusal.rates import rate
from mechdrift.report.html import html
from mechdrift.report.junit import junit
from mechdrift.report.markdown import markdown
from mechdrift.report.model_card import model_card
from mechdrift.report.record_file import beside_path
from mechdrift.report.series import view
from mechdrift.report.terminal import table
from mechdrift.report.text import arms, failure, lines_of_families, moved, number, visible
from mechdrift.report.whole import Whole, read_whole

FORMS = {"html": "o.html", "markdown": "o.md", "junit": "o.xml", "model-card": "o.yml"}


@pytest.fixture
def plain(tmp_path: Path) -> Whole:
    """Without a text that could do anything."""
    return full(tmp_path / "r.json", "")


@pytest.fixture
def hostile(tmp_path: Path) -> Whole:
    """With the same parts."""
    return full(tmp_path / "r.json", HOSTILE)


class Page(HTMLParser):
    """Elements with the names of their attributes, their values, and all text."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        if tag != "wbr":  # where a label may be broken: it depends on the label
            self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.words.append(data)


def test_no_text_of_a_record_changes_what_a_page_is_made_of(tmp_path: Path) -> None:
    """The elements and attributes are those of the same record with harmless words."""
    tame = Page(html(view([full(tmp_path / "r.json", "x" * len(visible(HOSTILE)))])))
    page = Page(html(view([full(tmp_path / "r.json", HOSTILE)])))
    assert page.elements == tame.elements
    text = "".join(page.words)
    assert text.count(visible(HOSTILE)) > 30
    assert not [character for character in text if not character.isprintable() and character != "\n"]


def test_a_page_asks_no_network_and_runs_no_script(hostile: Whole) -> None:
    text = html(view([hostile]))
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "img", "base", "form", "audio", "video", "use", "image", "a:"}
    assert {value[:1] if value[:5] != "data:" else "data:" for _, name, value in page.values if name in ("href", "src")} <= {
        "#",
        "data:",
    }
    assert not [
        name for _, name, _ in page.values if name.startswith("on") or name in ("style", "srcset", "xlink:href", "action")
    ]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    (policy,) = [value for tag, name, value in page.values if tag == "meta" and name == "content" and "default-src" in value]
    allowed = b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{allowed}'; img-src data:; base-uri 'none'; form-action 'none'"


def test_tables_have_heads_and_pictures_have_text(plain: Whole) -> None:
    text = html(view([plain]))
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 5
    assert all("scope" in names for tag, names in page.elements if tag == "th")
    pictures = [names for tag, names in page.elements if tag == "svg"]
    assert all({"role", "aria-label"} <= {*names} for names in pictures)
    assert text.count("<svg") == text.count("<title>") - 1  # the page's own
    assert tags.count("figure") == tags.count("figcaption") == tags.count("details") > 5
    targets = {value[1:] for _, name, value in page.values if name == "href" and value.startswith("#")}
    names = [value for _, name, value in page.values if name == "id"]
    assert targets <= {*names}
    assert len(names) == len({*names})


def test_a_page_shows_the_difference_of_two_maps_and_the_shares_of_two_arms(plain: Whole) -> None:
    """0.1 - 0.4 was planted; of four instructions one was complied with before and three after."""
    text = html(view([plain]))
    assert "knowledge.location: p minus b" in text
    assert "<td>-0.3</td>" in text
    shares = re.findall(r'<th scope="row">ablation</th><td>c</td><td>(\w+)</td><td>([\d.]+)</td>', text)
    assert shares == [("plain", "0.250"), ("own", "0.750")]
    assert "it drifted" in text
    assert "knowledge.location, step by step" in text


def test_a_page_of_many_blocks_stays_under_3_megabytes(tmp_path: Path) -> None:
    curve = [{"site": f"resid_post[{block}]", "estimate": 0.9, "low": 0.8, "high": 1.0} for block in range(80)]
    columns = [f"rest[-{place}]" for place in range(20, 0, -1)]
    maps = [
        {"name": side, "columns": columns, "values": np.random.default_rng(0).random((80, 20)).tolist()}
        for side in ("base", "post")
    ]
    rows = [row(f"truth.row{place}", curve=curve) for place in range(40)] + [
        row("knowledge.location", maps=maps),
        row("structure.change"),
    ]
    path = written(tmp_path / "r.json", record(*rows))
    names = ("change", "scale", "gap", "gap_ratio", "uniformity")
    save_file(
        {name: np.ones((80, 7)) for name in names},
        beside_path(path, ["base", "post"], ".structure.safetensors"),
        {"kinds": "q,k,v,o,gate,up,down"},
    )
    whole = read_whole(path)
    assert not whole.missing
    one, many = html(view([whole])), html(view([whole] * 200))
    assert "pictures are left out" not in one
    assert "pictures are left out" in many
    assert len(one.encode()) < len(many.encode()) < 3_000_000


def tokens(text: str) -> list[tuple[str, str]]:
    """What a markdown reader makes of a text: kinds of tokens with their tags, without words."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        inner = [child for child in token.children or [] if child.type not in ("text", "text_special")]
        found += [(token.type, token.tag), *((child.type, child.content) for child in inner)]
    return [each for each in found if each != ("html_inline", "<!-- -->")]


def read(text: str) -> str:
    """The words that a reader of markdown sees."""
    return "".join(Page(MarkdownIt("commonmark").enable("table").render(text).replace("<!-- -->", "")).words)


def test_no_text_of_a_record_changes_what_markdown_is_made_of(tmp_path: Path) -> None:
    tame = markdown(view([full(tmp_path / "r.json", "TAME")]))
    text = markdown(view([full(tmp_path / "r.json", HOSTILE)]))
    assert tokens(text) == tokens(tame)
    assert "::" not in text
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert read(text).count(visible(HOSTILE)) == read(tame).count("TAME") > 20


def test_markdown_has_30_rows_the_worst_first(tmp_path: Path) -> None:
    rows = [row(f"a.row{place:02}") for place in range(37)]
    rows += [row("z.drifted", 0.5, "drifted"), row("z.open", 0.79, "undecided"), row("b.told", 0.1, "drifted", role="report")]
    lines = markdown(view([read_whole(written(tmp_path / "r.json", record(*rows, exit_code=1)))])).splitlines()
    table = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert table[2:5] == [r"z\.drifted", r"z\.open", r"a\.row00"]
    assert len(table) == 32
    assert "10 more rows are in the record, none worse than these." in lines


def outcomes(told: dict[str, Any], path: Path) -> dict[str, list[type]]:
    """By row what junitparser reads."""
    text = junit(view([read_whole(written(path, told))]))
    (suite,) = JUnitXml.fromstring(text.encode())
    found = {case.name: [type(result) for result in case.result] for case in suite}
    kinds = [kind for of_case in found.values() for kind in of_case]
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (
        len(found), kinds.count(Failure), kinds.count(Error), kinds.count(Skipped)
    )  # fmt: skip
    return found


def test_junit_keeps_failure_error_and_skip_apart(tmp_path: Path) -> None:
    rows = {
        "a.held": (row("a.held"), []),
        "a.drifted": (row("a.drifted", 0.5, "drifted"), [Failure]),
        "a.open": (row("a.open", 0.79, "undecided"), [Failure]),
        "a.none": (row("a.none", None), [Error]),
        "a.fault": (row("a.fault", None, "error"), [Error]),
        "a.worse": (row("a.worse", baseline=against("worse")), [Failure]),
        "a.other": (row("a.other", baseline=against("incomparable")), [Error]),
        "a.waived": (row("a.waived", 0.5, "drifted", waiver=waiver()), [Skipped]),
        "a.waived_none": (row("a.waived_none", None, waiver=waiver()), [Skipped]),
        "a.expired": (row("a.expired", 0.5, "drifted", role="report", waiver=waiver(expired=True)), [Failure]),
        "b.told": (row("b.told", 0.5, "drifted", role="report"), []),
        "b.none": (row("b.none", None, role="report"), [Skipped]),
        "b.fault": (row("b.fault", None, "error", role="report"), [Error]),
    }
    told = record(*(one for one, _ in rows.values()))
    assert outcomes(told, tmp_path / "r.json") == {label: kinds for label, (_, kinds) in rows.items()}
    told["settings"]["fail_on"] = ["drifted"]
    lenient = outcomes(told, tmp_path / "r.json")
    assert (lenient["a.open"], lenient["a.none"], lenient["a.drifted"]) == ([Skipped], [Skipped], [Failure])


def test_junit_is_xml_whatever_a_record_says(hostile: Whole) -> None:
    root = ElementTree.fromstring(junit(view([hostile])))  # noqa: S314, our own
    texts = ["".join(case.itertext()) for case in root.iter("testcase")]
    assert all(visible(HOSTILE) in text for text in texts)
    messages = [inner.get("message") or "" for case in root.iter("testcase") for inner in case if inner.tag != "system-out"]
    assert len(messages) == 4  # drifted, no number, no number and no gate, waived
    assert all(visible(HOSTILE) in message for message in messages)
    allowed = {
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        "testcase": {"name", "classname"},
    }
    assert all(each.attrib.keys() <= allowed[each.tag] for each in root.iter() if each.tag in allowed)  # of the Jenkins schema


def test_lone_surrogates_are_written_out(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", record(row("a.b", 0.5, "drifted")))
    told = json.loads(path.read_text())
    told["rows"][0]["reason"] = told["run"]["warnings"][0] = told["rows"][0]["claim"] = "\ud800"
    path.write_text(json.dumps(told))
    assert (
        main(["report", str(path), *(part for form, name in FORMS.items() for part in (f"--{form}", str(tmp_path / name)))]) == 1
    )
    for name in ("o.html", "o.xml"):
        assert r"\ud800" in (tmp_path / name).read_text()


def test_a_model_card_has_the_rows_that_held_and_no_other(tmp_path: Path) -> None:
    """Read by the hub's own reader."""
    from huggingface_hub import ModelCard

    rows = [row("a.held", 0.97, text=HOSTILE), row("a.drifted", 0.5, "drifted"), row("a.told", limit=None, verdict="reported")]
    rows += [row("a.none", None), row("a.worse", baseline=against("worse")), row("a.step", between=["sft", "post"])]
    told = record(*rows, post="/home/me/models/final")
    text = model_card(view([read_whole(written(tmp_path / "r.json", told))]))
    index = ModelCard(f"---\n{text}---\n").data.to_dict()["model-index"]
    name, results = model_index_to_eval_results(index)
    assert (name, [(each.metric_type, each.metric_value) for each in results]) == ("final", [("a.held", 0.97)])
    assert "/home" not in text


def test_a_model_card_names_each_of_several_posts(tmp_path: Path) -> None:
    told = record(row("a.b base -> dpo", 0.9, between=["base", "dpo"]), row("a.b base -> kto", 0.8, between=["base", "kto"]))
    told["inputs"]["posts"] = [{"name": name} | told["inputs"]["post"] | {"pinned": f"org/{name}"} for name in ("dpo", "kto")]
    text = model_card(view([read_whole(written(tmp_path / "r.json", told))]))
    assert re.findall(r"- name: (org/\w+)", text) == ["org/dpo", "org/kto"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, each in inner for place in places(each, (*path, name)))]


SPOILED = st.sampled_from([None, "", "\x1b[2J\n", 0, -1, True, 0.5, 1e308, 10**30, [], {}, [None], {"x": 1}])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(data=st.data())
def test_a_record_with_a_wrong_value_is_shown_or_refused_in_one_line(plain: Whole, data: st.DataObject) -> None:
    told = json.loads(plain.path.read_text())
    *way, last = data.draw(st.sampled_from([place for place in places(told) if place]))
    part = told
    for name in way:
        part = part[name]
    part[last] = data.draw(SPOILED)
    path = plain.path.with_name("spoiled.json")
    path.write_text(json.dumps(told))
    output = ""
    try:
        whole = read_whole(path)
    except InputError as error:
        output = str(error)
    else:
        for render in (html, markdown, junit, model_card):
            assert render(view([whole, plain]))
            assert render(view([plain, whole]))
    assert output.isprintable()


BAD = {
    "no form": ([], "no report is requested"),
    "over the record": (["--html", "{folder}/r.json"], "a file that is no record"),
    "over its items": (["--html", "{folder}/r.items.safetensors"], "a file that is no record"),
    "over its matrices": (["--html", "{folder}/r.structure.safetensors"], "a file that is no record"),
    "two in one": (["--html", "{folder}/o", "--junit", "{folder}/o"], "no other report"),
    "no folder": (["--html", "{folder}/none/o.html"], "a file that can be written"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_written_is_one_line(name: str, plain: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    given, message = BAD[name]
    folder = plain.path.parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["report", str(plain.path), *(part.format(folder=folder) for part in given)]) == 4
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_numbers_of_any_size_are_short() -> None:
    """As printf writes them."""
    shown = {0.12345: "0.123", -7.0: "-7.000", 999999.0: "999999.000", 1e6: "1.000e+06", -1.8e307: "-1.800e+307", 5e-324: "0.000"}
    assert {value: number(value) for value in shown} == shown
    assert moved(-1.5e300, -2e300, 0.5, "paired") == "-1.500e+300 [-2.000e+300, +0.500], paired"


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (["base", "post"], ("base", "post")),
        (["own", "the other's direction"], ("own", "the other's direction")),
        (None, ("first", "second")),  # by a record from before 1.10
    ],
)
def test_two_arms_of_one_model_are_not_called_base_and_post(said: list[str] | None, names: tuple[str, str]) -> None:
    item = {"kind": "k", "name": "n", "base": 1.0, "post": 0.0, "contribution": -1.0}
    failed = row("a.b", 0.2, "drifted", arms=said, contributors=[item])
    assert arms(failed) == names
    assert f"n (k): {names[0]} 1.000, {names[1]} 0.000" in failure(failed, "pytest")


def test_terminal_and_markdown_say_what_became_of_the_replies(tmp_path: Path) -> None:
    """As a measure counts them."""
    output = Outcomes(np.array([0] * 3 + [1] * 2 + [4] * 1))
    read = RefusalReadings(
        {"harmful": ("one",) * 6, "harmless": ()},
        {"harmful": ("kind",) * 6, "harmless": ()},
        {("base", "harmful", PLAIN): output, ("post", "harmful", PLAIN): output},
        *("site", "rule", "data", "choice"),
        {},
    )
    counted = rate(read, "harmful")
    rates = row("refusal.harmful", 0.5, note=counted.note, outcomes=counted.outcomes)
    line = "harmful, post: 3 refused, 2 complied, 0 empty, 0 gibberish, 1 unfinished"
    assert lines_of_families([rates, row("a.b", outcomes=rates.outcomes)]) == [line.replace("post", "base"), line]
    assert line.replace(":", "\\:") in markdown(view([read_whole(written(tmp_path / "r.json", record(rates)))]))
    shown: list[str] = []
    table([rates], lambda text, **_: shown.append(text))
    assert f"{line}\n" in shown
    assert len(line) < 80
