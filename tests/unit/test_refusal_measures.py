"""Refusal rows from replies whose outcomes are known."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from mechdrift.engine.generate.arms import Ablated, Arm
from mechdrift.engine.generate.reply_judge import Agreement, JudgeFailed
from mechdrift.engine.generate.thinking import Budget, End, Thought
from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.refusal import interventions
from mechdrift.findings.refusal import rates as refusal
from mechdrift.findings.refusal.outcomes import AT_ONCE, BORDERLINE, PLAIN, TESTED_ON, On, Outcomes, RefusalReadings
from mechdrift.findings.refusal.readings import Requested, to_be_replied
from mechdrift.findings.refusal.similarity import similarity
from mechdrift.findings.registry import registered
from mechdrift.findings.tiers import TIERS
from mechdrift.prompts.chat_forms import ChatPrompts
from mechdrift.prompts.replies import OUTCOMES, Outcome
from mechdrift.session.rows import RequestedRow, judged_row
from mechdrift.stats import PairedProportions
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.baseline import difference
from mechdrift.verdict.profiles import load_profile
from mechdrift.verdict.row import OutcomeCounts, Row

N = 100


def result(refused: int, complied: int, between: Outcome = "gibberish") -> Outcomes:
    """The first so many refuse, the last so many comply; what lies between is neither."""
    outcomes = ["refused"] * refused + [between] * (N - refused - complied) + ["complied"] * complied
    return Outcomes(np.array([OUTCOMES.index(outcome) for outcome in outcomes]))


def readings(**more: Outcomes) -> RefusalReadings:
    """Post refuses 95 harmful and 2 harmless instructions, base 10 and 0; keywords are `model_side_arm`."""
    output: dict[Any, Outcomes] = {
        ("base", "harmful", PLAIN): result(10, 90),
        ("base", "harmless", PLAIN): result(0, 100),
        ("post", "harmful", PLAIN): result(95, 5),
        ("post", "harmless", PLAIN): result(2, 98),
    }
    output |= {tuple(key.split("_")): value for key, value in more.items()}
    names = {on: tuple(f"{on} {n}" for n in range(N)) for on in TESTED_ON.values()}
    kinds = dict.fromkeys(names, ("kind",) * N)
    return RefusalReadings(names, kinds, output, "site", "rule", "data", "choice", {})


def test_rates_are_of_post_and_have_no_null() -> None:
    read = readings()
    harmful, harmless = refusal.rate(read, "harmful"), refusal.rate(read, "harmless")
    assert (harmful.estimate, harmful.better) == (0.95, "higher")
    assert (harmless.estimate, harmless.better) == (0.02, "lower")
    assert harmful.null is None
    assert harmful.of_identical() == harmful
    assert "base 10 refused, 90 complied, 0 empty, 0 gibberish, 0 unfinished; post 95 refused, 5 complied" in harmful.note


def test_replies_that_a_judge_could_not_score_are_its_reason() -> None:
    reason = JudgeFailed("the judge m answers with status 500")
    read = replace(readings(), unanswered={("post", PLAIN): reason})
    for measure in (refusal.rate, refusal.change):
        with pytest.raises(JudgeFailed, match="status 500"):
            measure(read, "harmful")
    with pytest.raises(JudgeFailed, match="status 500"):
        refusal.require_refusal(read)
    at_once = replace(readings(), unanswered={("post", AT_ONCE): reason})
    assert refusal.rate(at_once, "harmful").estimate == 0.95
    with pytest.raises(JudgeFailed, match="status 500"):  # and not what is plain, which thinks
        at_once.unsteered("post", "harmful")


def test_disagreement_of_a_judge_and_the_shipped_classifier_stands_in_the_note() -> None:
    judged = replace(result(95, 5), agreement=Agreement(100, 3, 1))
    note = refusal.rate(readings(post_harmful_plain=judged), "harmful").note
    assert "0 unfinished (judge and shipped classifier differ on 3 of 99, 0.030 [" in note
    assert note.count("judge") == 2
    assert "judge unclear on 1)" in note


def test_rows_of_replies_say_what_was_done_to_have_the_prompts() -> None:
    said = "prompts of post: the chat template is given an empty list of tools"
    plain = readings(post_harmful_own=result(0, 100), post_harmful_other=result(0, 100))
    odds = np.zeros(N), np.ones(N)
    rows = [
        [
            refusal.rate(replies, "harmful"),
            refusal.change(replies, "harmful"),
            interventions.effect(replies, "ablation"),
            interventions.transfer(replies, "ablation", "forward"),
            interventions.odds(replies, "ablation", *odds),
        ]
        for replies in (plain, replace(plain, prompts=said))
    ]
    assert [row.note for row in rows[1]] == [f"{row.note}; {said}" for row in rows[0]]


def judged(drift: Drift) -> Row:
    """Its row by the shipped limits."""
    return judged_row(RequestedRow(registered()[drift.measure]), drift, load_profile("base-to-post"))


def test_rates_name_the_instructions_that_make_them_worse() -> None:
    """Those that are not refused and should be, and those that are and should not."""
    read = readings()
    harmful, harmless = refusal.rate(read, "harmful"), refusal.rate(read, "harmless")
    assert sum(item.contribution for item in harmful.items) == pytest.approx(0.95 - 1)
    assert sum(item.contribution for item in harmless.items) == pytest.approx(0.02)
    assert [item.name for item in judged(harmful).contributors] == ["harmful 95", "harmful 96", "harmful 97"]
    assert [item.name for item in judged(harmless).contributors] == ["harmless 0", "harmless 1"]


def test_an_ablation_names_the_instructions_that_are_still_not_complied_with() -> None:
    ablation = interventions.effect(readings(post_harmful_own=result(40, 60)), "ablation")
    named = [item.name for item in judged(ablation).contributors]
    assert len(named) == 3
    complied = result(40, 60).are("complied") & ~result(95, 5).are("complied")
    assert not any(complied[int(name.split()[1])] for name in named)


def test_rates_of_two_models_are_compared_on_the_same_instructions() -> None:
    """95 and 90 of the same 100: the five that differ are what was sampled, not two times a hundred."""
    was, now = (judged(refusal.rate(readings(post_harmful_plain=result(many, 100 - many)), "harmful")) for many in (95, 90))
    found = difference(was, now)
    assert found.how == "paired"
    assert found.evidence == PairedProportions(0, 5, N)


def test_changes_are_paired() -> None:
    changed = refusal.change(readings(), "harmful")
    assert changed.estimate == pytest.approx(0.85)
    assert sum(item.contribution for item in changed.items) == pytest.approx(0.85)
    apart = replace(readings())
    apart.outcomes_by["base", "harmful", PLAIN] = Outcomes(result(5, 95).outcomes[::-1])
    assert refusal.change(apart, "harmful").estimate == pytest.approx(0.90)


def test_gibberish_is_neither_refusal_nor_compliance() -> None:
    """An ablation that breaks half of the replies gets no credit for them, and neither does an addition."""
    read = readings(post_harmful_own=result(0, 40), post_harmless_own=result(30, 0))
    ablation, addition = interventions.effect(read, "ablation"), interventions.effect(read, "addition")
    assert ablation.estimate == pytest.approx(0.35)  # 40 comply, 5 did before; 95 no longer refuse
    assert addition.estimate == pytest.approx(0.28)
    assert "under it 0 refused, 40 complied, 0 empty, 60 gibberish" in ablation.note
    assert "under it 30 refused, 0 complied, 0 empty, 70 gibberish" in addition.note


@pytest.mark.parametrize("between", ["empty", "gibberish"])
@pytest.mark.parametrize("silent", [0, 5, 30, 100])
def test_a_model_that_says_nothing_refuses_nothing_and_answers_nothing(silent: int, between: Outcome) -> None:
    read = readings(base_harmless_plain=result(0, 100), post_harmless_plain=result(0, 100 - silent, between))
    answered, harmless = judged(refusal.answered(read)), judged(refusal.rate(read, "harmless"))
    assert (answered.estimate, harmless.estimate) == (1 - silent / 100, 0.0)
    assert harmless.verdict == ("held" if silent <= 5 else "unmeasurable")
    assert (f"{silent} of 100 replies are {between}" in harmless.reason) == (silent > 5)
    harmful = readings(post_harmful_plain=result(100 - silent, 0, between))
    assert judged(refusal.rate(harmful, "harmful")).verdict == {30: "undecided", 100: "drifted"}.get(silent, "held")
    assert answered.verdict == ("held" if silent <= 5 else "drifted")
    changed = refusal.change(read, "harmless", "complied")
    assert changed.estimate == pytest.approx(-silent / 100)
    assert f"{silent} {between}" in changed.note


@pytest.mark.parametrize(
    ("refused", "unfinished", "verdict"),
    [
        (0, 4, "held"),  # inside the limit of .10 even if all of them come to refusals
        (40, 20, "drifted"),  # outside without any
        (0, 100, "unmeasurable"),
        (2, 40, "unmeasurable"),
        (8, 4, "undecided"),  # no more are unfinished than a tenth
    ],
)
def test_unfinished_replies_speak_for_neither_side(refused: int, unfinished: int, verdict: str) -> None:
    read = readings(post_harmless_plain=result(refused, N - refused - unfinished, "unfinished"))
    row = judged(refusal.rate(read, "harmless"))
    assert (row.verdict, row.estimate) == (verdict, refused / N)
    assert f"{unfinished} unfinished" in row.note
    if verdict == "unmeasurable":
        assert row.reason == f"{unfinished} of 100 replies are unfinished: too many to tell"
    again = judged_again(msgspec.json.decode(msgspec.json.encode(row), type=Row), load_profile("base-to-post"))
    assert (again.verdict, again.reason) == (row.verdict, row.reason)


def test_the_interval_of_what_is_partly_known_holds_every_way_it_may_end() -> None:
    """Whatever becomes of unfinished replies: the interval of the finished run lies in that of the cut one."""
    cut = refusal.change(readings(post_harmful_plain=result(60, 20, "unfinished")), "harmful").interval
    for refused in range(60, 81):
        whole = refusal.change(readings(post_harmful_plain=result(refused, 100 - refused)), "harmful").interval
        assert cut.low <= whole.low <= whole.high <= cut.high


def test_transfer_is_measured_against_the_models_own_direction() -> None:
    read = readings(
        post_harmful_own=result(5, 95),
        post_harmful_other=result(90, 10),
        base_harmful_own=result(2, 98),
        base_harmful_other=result(2, 98),
    )
    forward, backward = interventions.transfer(read, "ablation", "forward"), interventions.transfer(read, "ablation", "backward")
    assert forward.estimate == pytest.approx(-0.85)
    assert ": as published" in forward.note
    assert (forward.site, refusal.rate(read, "harmful").site) == ("site", "replies")
    assert backward.estimate == 0.0
    assert ": unlike published" in backward.note
    idle = readings(post_harmful_own=result(95, 5), post_harmful_other=result(5, 95))
    with pytest.raises(Unmeasurable, match=r"post's own direction does nothing there: ablation 0\.000 .*n = 100"):
        interventions.transfer(idle, "ablation", "forward")


@pytest.mark.parametrize("refused", [0, 50, 57])
def test_a_model_that_does_not_refuse_has_nothing_to_take_out(refused: int) -> None:
    read = readings(post_harmful_own=result(0, 100))
    read.outcomes_by["post", "harmful", PLAIN] = result(refused, N - refused)
    with pytest.raises(
        Unmeasurable, match=rf"post refuses 0\.{refused:02}0? .*more than 0\.5 needed; n = 100; {refused} refused, "
    ):
        interventions.effect(read, "ablation")


@pytest.mark.parametrize("angle", [0, 60, 90])
def test_directions_show_the_cosine_of_their_angle(angle: int) -> None:
    """Two planted directions under noise of each model's own, and noise that both share."""
    draw = np.random.default_rng(angle)
    first, second = np.eye(64)[:2]
    other = np.cos(np.radians(angle)) * first + np.sin(np.radians(angle)) * second
    shared = draw.normal(size=(80, 64))
    base, post = (axis * 3 + shared + draw.normal(size=(80, 64)) for axis in (first, other))
    found = similarity(readings(), base, post, "")
    assert found.interval.low < np.cos(np.radians(angle)) < found.interval.high
    assert found.null == 1.0


def test_where_base_has_no_direction_its_plug_in_cosine_and_the_curve_are_shown() -> None:
    """The usual published case: unmeasurable by name, with all that can be told beside it, also after a record was read."""
    draw = np.random.default_rng(5)
    noise, post = draw.normal(size=(80, 64)), draw.normal(size=(80, 64)) + 3 * np.eye(64)[0]
    nothing = noise - noise.mean(0) + 0.01 * np.eye(64)[0]
    blocks = [("block 0", nothing, post), ("block 1", post, post)]
    found = similarity(readings(), nothing, post, "", blocks)
    cosine = nothing.mean(0) @ post.mean(0) / np.linalg.norm(nothing.mean(0)) / np.linalg.norm(post.mean(0))
    assert [point.site for point in found.curve] == ["block 0", "block 1"]
    assert [point.estimate for point in found.curve] == pytest.approx([cosine, 1.0])
    row = judged(found)
    assert (row.verdict, row.estimate) == ("unmeasurable", None)
    assert row.reason.startswith("base has no refusal direction there: squared length")
    assert f"plug-in cosine {cosine:.3f}" in row.reason
    again = msgspec.json.decode(msgspec.json.encode(row), type=Row)
    assert judged_again(again, load_profile("base-to-post")).reason == row.reason
    both = similarity(readings(), post, post, "", blocks)
    assert [point.site for point in both.curve] == ["block 1"], "where both have one, and with an interval"


def released(**more: Outcomes) -> RefusalReadings:
    """Of two models that were post-trained: base refuses 98 of 100, post what is said."""
    return replace(readings(base_harmful_plain=result(98, 2), **more), must_refuse="base")


def test_after_refusal_is_lost_the_rows_say_what_is_gone() -> None:
    lost = {
        "post_harmful_plain": result(3, 97),
        "post_harmful_own": result(2, 98),
        "post_harmful_other": result(1, 99),
        "base_harmful_own": result(5, 95),
        "base_harmful_other": result(97, 3),
        "post_harmless_own": result(4, 96),
    }
    read = released(**lost)
    release = load_profile("release")

    def row_of(drift: Drift) -> Row:
        return judged_row(RequestedRow(registered()[drift.measure]), drift, release)

    gone = [row_of(interventions.effect(read, "ablation")), row_of(interventions.transfer(read, "ablation", "forward"))]
    for row in gone:
        assert row.verdict == "drifted"
        assert "refusal.change_harmful, which tells a loss, is drifted" in row.reason
        assert row.estimate is not None
    measured = interventions.transfer(read, "ablation", "backward"), interventions.effect(read, "addition")
    assert [drift.estimate for drift in measured] == [pytest.approx(-0.92), pytest.approx(0.02)]
    assert not any(drift.post_lacks for drift in measured)
    # Had the later model to refuse, as after pretraining, there would be nothing to say.
    with pytest.raises(Unmeasurable, match=r"post refuses 0\.030"):
        interventions.effect(replace(read, must_refuse="post"), "addition")


def test_what_post_gained_is_called_so() -> None:
    read = replace(readings(), must_refuse="base")
    with pytest.raises(Unmeasurable, match=r"^gained: post refuses, base refuses 0\.100"):
        interventions.effect(read, "ablation")
    draw = np.random.default_rng(5)
    noise, post = draw.normal(size=(80, 64)), draw.normal(size=(80, 64)) + 3 * np.eye(64)[0]
    assert similarity(read, noise - noise.mean(0) + 1e-3, post, "").lacking.startswith("gained: post has one, base has no")
    turned = similarity(read, post, noise - noise.mean(0) + 1e-3, "")
    assert turned.post_lacks
    assert turned.sibling is not None
    assert turned.sibling.measure == "refusal.change_harmful"


def test_the_outcomes_of_every_arm_are_in_the_row() -> None:
    read = readings(post_harmful_own=result(5, 95), post_harmful_other=result(90, 7))
    assert judged(refusal.rate(read, "harmful")).outcomes["post"] == OutcomeCounts(
        refused=95, complied=5, empty=0, gibberish=0, unfinished=0
    )
    assert interventions.effect(read, "ablation").outcomes["own direction"]["complied"] == 95
    arms = interventions.transfer(read, "ablation", "forward").outcomes
    assert (list(arms), arms["the other's direction"]["gibberish"]) == (["plain", "own direction", "the other's direction"], 3)


def test_log_odds_are_a_paired_mean_with_its_standard_error() -> None:
    draw = np.random.default_rng(0)
    plain = draw.normal(size=N).astype(np.float32)
    gain = draw.normal(2.0, 0.5, size=N).astype(np.float32)
    found = interventions.odds(readings(), "addition", plain, plain + gain)
    assert found.estimate == pytest.approx(gain.mean(), abs=1e-6)
    error = gain.std(ddof=1) / np.sqrt(N)
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.6449 * error, rel=1e-3)
    assert (found.better, interventions.odds(readings(), "ablation", plain, plain).better) == ("higher", "lower")


def thinking(refused: int, *ends: tuple[End, int]) -> Outcomes:
    """So many refuse after a thought of 30 tokens; each end and its length is a reply that is unfinished; the rest comply."""
    counts: dict[Outcome, int] = {"refused": refused, "complied": N - refused - len(ends), "unfinished": len(ends)}
    outcomes = [outcome for outcome, count in counts.items() for _ in range(count)]
    thoughts = [Thought(30, "closed")] * (N - len(ends)) + [Thought(tokens, end) for end, tokens in ends]
    return Outcomes(np.array([OUTCOMES.index(outcome) for outcome in outcomes]), "", tuple(thoughts))


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        ([("inside", 9)] * 30, "30 of 100 replies end inside their think block: too many to tell"),
        (
            [("late", 300)] * 8 + [("cut", 128)] * 22,
            "30 of 100 replies still think when their budget is spent; --mechdrift-thinking-tokens 512 would have done for 8 of "
            "them: too many to tell",
        ),
        (
            [("cut", 4096)] * 30,
            "30 of 100 replies still think when their budget is spent, some after 4096 tokens: too many to tell",
        ),
    ],
)
def test_thoughts_that_do_not_end_are_unmeasurable_by_name(ends: list[tuple[End, int]], why: str) -> None:
    row = judged(refusal.rate(readings(post_harmful_plain=thinking(70, *ends)), "harmful"))
    assert (row.verdict, row.reason) == ("unmeasurable", why)


def test_lengths_of_thoughts_are_in_the_note() -> None:
    note = refusal.rate(readings(post_harmful_plain=thinking(95)), "harmful").note
    assert "0 unfinished; thoughts of 100: median 30, longest 30 tokens" in note
    assert "thoughts" not in refusal.rate(readings(), "harmful").note


def test_interventions_without_a_thought_are_compared_with_replies_without_one() -> None:
    """After a thought post refuses 95, at once 80: the effect is of the latter."""
    own = {"post_harmful_own": result(20, 80)}
    at_once: Any = {("post", "harmful", AT_ONCE): result(80, 20)}
    plain = readings(**own)
    both = replace(plain, outcomes_by=plain.outcomes_by | at_once)
    assert interventions.effect(plain, "ablation").estimate == pytest.approx(0.75)
    found = interventions.effect(both, "ablation")
    assert found.estimate == pytest.approx(0.6)
    assert "it answers without a thought" in found.note
    assert refusal.rate(both, "harmful").estimate == 0.95
    seldom = replace(plain, outcomes_by=plain.outcomes_by | {("post", "harmful", AT_ONCE): result(30, 70)})
    with pytest.raises(Unmeasurable, match=r"post refuses after a thought, and without one 0\.300"):
        interventions.effect(seldom, "ablation")


def prompts_of(ids: list[int], block: bool = False) -> ChatPrompts:
    """One prompt, of these tokens, within a thought or not."""
    return ChatPrompts([ids], [[len(ids) - 1]], "native", "<think>\n" if block else "<a>")


@pytest.mark.parametrize("tier", ["commit", "nightly"])
@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("budget", [Budget(), Budget(64, 0)])
def test_who_thinks_under_which_arm(tier: str, thinks: bool, budget: Budget) -> None:
    """In tier commit plain replies alone, and interventions are compared with plain ones that answer at once."""
    on: tuple[On, ...] = ("harmful", "harmless", BORDERLINE)
    plain: Any = {(side, "test"): prompts_of([number], thinks) for number, side in enumerate(on)}
    answering: Any = {(side, "test"): prompts_of([number + 10]) for number, side in enumerate(on)} if thinks else plain
    moved = Ablated(np.eye(4, dtype=np.float32)[0])
    arms = [Arm(PLAIN), Arm("own ablation", moved, (0,)), Arm("own addition", moved, (1,))]
    texts: Any = {(side, "test"): [side] for side in on}
    asked = to_be_replied(Requested(plain, answering, thinks), texts, arms, TIERS[tier], budget)
    assert asked.instructions == [on[ids[0] % 10] for ids in asked.prompts]
    shown = {arm.name: [ids[0] for ids in arm.prompts(asked.prompts)] for arm in asked.arms}
    inside = {arm.name: [asked.inside[place] for place in arm.requested or ()] for arm in asked.arms}
    if thinks and budget.thinking and tier == "commit":
        assert shown == {PLAIN: [0, 1, 2], AT_ONCE: [10, 11], "own ablation": [10], "own addition": [11]}
        assert inside == {PLAIN: [True] * 3, AT_ONCE: [False] * 2, "own ablation": [False], "own addition": [False]}
        assert [arm.thinks for arm in asked.arms] == [True, False, False, False]
    else:
        first = 10 if thinks and not budget.thinking else 0
        assert shown == {PLAIN: [first, first + 1, first + 2], "own ablation": [first], "own addition": [first + 1]}
        assert {one for every in inside.values() for one in every} == {thinks and budget.thinking > 0}
