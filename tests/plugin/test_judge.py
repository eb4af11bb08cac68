"""A run whose replies a language model behind an endpoint judges."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from chat_server import Messages, Sent, completion, failing, listed, reply_in, serving

PAIR = ("organism:base", "organism:instruct")
REFUSAL = ("--mechdrift-only", "refusal")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHDRIFT_JUDGE_KEY", "sk-secret")


def the_other_way(messages: Messages) -> Sent:
    """The other way round than the shipped classifier has it."""
    return completion("COMPLIED" if reply_in(messages).startswith("I'm sorry") else "REFUSED")


def test_a_judge_decides_and_its_disagreement_is_shown(compare: Callable[..., Any]) -> None:
    """A second run with other workers asks nobody, and finds the same."""
    harmful = ("--mechdrift-only", "refusal.harmful")
    shipped = compare(*PAIR, *harmful)
    with serving(the_other_way, listed(["flips"])) as server:
        run = compare(*PAIR, *harmful, "--mechdrift-judge", server.url)
        asked = len(server.requested)
        again = compare(*PAIR, *harmful, "--mechdrift-judge", f"{server.url}#flips", "-n1")
        assert len(server.requested) == asked
    row, other = run.rows["refusal.harmful"], shipped.rows["refusal.harmful"]
    assert shipped.code == 0
    assert run.code == 1
    assert row["estimate"] < 0.2 < 0.8 < other["estimate"]
    assert row["key"]["parameters"]["told_by"].startswith("judge flips, question of sha256 ")
    assert "judge and shipped classifier differ on " in row["note"]
    assert "judge and shipped classifier" not in other["note"]
    judge = run.record["settings"]["judge"]
    assert judge["model"] == "flips"
    assert judge["replies"] >= asked
    assert judge["unclear"] == 0
    assert judge["low"] < judge["share"] == judge["differ"] / judge["replies"] <= judge["high"]
    assert judge["share"] > 0.9
    assert shipped.record["settings"]["judge"] is None
    assert again.record["settings"]["judge"] == judge
    assert again.rows == run.rows
    work, later = (one.record["run"]["work"] for one in (run, again))
    assert (work["verdicts_requested"], work["verdicts_remembered"]) == (asked, 0)
    assert (later["verdicts_requested"], later["verdicts_remembered"]) == (0, 0)  # replies are kept with their scores
    assert f"replies judged by flips at {server.url}, question of sha256 " in run.out
    assert {*server.keys} == {"Bearer sk-secret"}
    for shown in (run.out, run.err, json.dumps(run.record)):
        assert "sk-secret" not in shown
        assert "sorry" not in shown


@pytest.mark.nightly
def test_an_endpoint_that_fails_on_the_way_makes_rows_of_replies_unmeasurable(
    compare: Callable[..., Any], pytester: pytest.Pytester
) -> None:
    """Those of directions and of first tokens are read of the models, and the next run goes on where this one ended."""
    number = count()
    with serving(lambda messages: the_other_way(messages) if next(number) < 5 else failing(401)) as server:
        run = compare(*PAIR, *REFUSAL, "--mechdrift-judge", server.url, cache=pytester.path / "cache")
    assert run.code == 7
    rows = {label.removeprefix("refusal.").partition("[")[0]: row for label, row in run.rows.items()}
    of_replies = {name for name in rows if name.partition("_")[0] not in ("direction", "separation", "odds")}
    assert {"harmful", "answered", "ablation", "addition_transfer", "change_borderline"} <= of_replies
    for name in of_replies:
        assert rows[name]["verdict"] == "unmeasurable"
        assert "the judge m answers with status 401; set MECHDRIFT_JUDGE_KEY; " in rows[name]["reason"]
    for name in rows.keys() - of_replies:
        assert rows[name]["status"] == "ok", rows[name]["reason"]
    assert run.record["run"]["work"]["verdicts_requested"] == 5
    assert "sk-secret" not in run.out + run.err
    with serving(the_other_way) as server:
        more = compare(*PAIR, *REFUSAL, "--mechdrift-judge", server.url, cache=pytester.path / "cache")
    assert more.rows["refusal.harmful"]["status"] == "ok"
    assert more.record["run"]["work"]["verdicts_remembered"] >= 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("http://127.0.0.1:9/v1", "--mechdrift-reply-classifier", "x"), "expected one who decides which replies refuse"),
        (("http://u:sk-secret@127.0.0.1:9/v1",), "its URL has a key or a query; expected neither; set MECHDRIFT_JUDGE_KEY"),
        (("127.0.0.1:9/v1",), "no http or https URL; expected URL or URL#MODEL"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_is_measured(
    compare: Callable[..., Any], given: tuple[str, ...], message: str
) -> None:
    run = compare(*PAIR, *REFUSAL, "--mechdrift-judge", *given)
    assert run.code == 4
    assert message in run.out + run.err
    assert "sk-secret" not in run.out + run.err


def test_an_endpoint_of_several_models_wants_a_name(compare: Callable[..., Any]) -> None:
    with serving(the_other_way, listed(["a", "b"])) as server:
        run = compare(*PAIR, *REFUSAL, "--mechdrift-judge", server.url)
    assert run.code == 4
    assert "2 models, a, b; expected one; type --mechdrift-judge http" in run.out + run.err
    assert not server.requested
