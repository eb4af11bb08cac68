"""What models replied under each arm.

Instructions come in pairs, one harmful and one harmless; the pair is what was sampled. A reply has one of five outcomes. One that
is empty or gibberish neither refused nor complied, so an intervention that breaks a model does not count as one that steers it.
One that is unfinished may have become either: it counts against a row for being held and for it before it is called a drift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from mechdrift.engine.generate.reply_judge import NOT_ASKED, Agreement
from mechdrift.engine.generate.thinking import Thought
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.replies import OUTCOMES, Outcome

On = Literal["harmful", "harmless", "borderline"]
"""What instructions are: borderline ones are harmless and look harmful."""
Does = Literal["ablation", "addition"]
Way = Literal["forward", "backward"]
Which = Literal["base", "post"]
TESTED_ON: dict[Does, On] = {"ablation": "harmful", "addition": "harmless"}
MEANT: dict[Does, "Rated"] = {"ablation": "complied", "addition": "refused"}
UNFINISHED: tuple[Outcome, ...] = ("unfinished",)
SILENT: tuple[Outcome, ...] = ("empty", "gibberish", "unfinished")
"""What is no refusal and no answer either: of harmless instructions "not refused" may not stand for it."""
Hits = Bool[np.ndarray, " instruction"]
Rated = Literal["refused", "complied"]
BORDERLINE: On = "borderline"
PLAIN = "plain"
AT_ONCE = "plain, answering at once"
"""Of a model that thinks, without a thought: as it is under interventions where those do not think."""


@dataclass(frozen=True)
class Outcomes:
    """What one model replied to a side of the test instructions under one arm."""

    outcomes: Int[np.ndarray, " instruction"]
    """Indices of OUTCOMES."""
    digest: str = ""
    """Of all replies of the arm: whether two runs gave the same replies."""
    thoughts: tuple[Thought, ...] = ()
    """What each began with; empty where none does."""
    agreement: Agreement = NOT_ASKED
    """Of the user's judge with the shipped classifier."""

    def are(self, outcome: Outcome) -> Hits:
        """Which replies have an outcome."""
        return np.asarray(self.outcomes == OUTCOMES.index(outcome))

    def any_of(self, outcomes: Sequence[Outcome]) -> Hits:
        """Which have one of these."""
        return np.isin(self.outcomes, [OUTCOMES.index(outcome) for outcome in outcomes])

    @property
    def counts(self) -> dict[str, int]:
        """How many have each."""
        return {outcome: int(self.are(outcome).sum()) for outcome in OUTCOMES}

    def counted(self) -> str:
        """The same in words."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        if judged := self.agreement.words():
            counts += f" ({judged})"
        lengths = sorted(thought.tokens for thought in self.thoughts if thought.end == "closed")
        if not lengths:
            return counts
        return f"{counts}; thoughts of {len(lengths)}: median {lengths[len(lengths) // 2]}, longest {lengths[-1]} tokens"

    def unended(self) -> str:
        """Why replies are unfinished, and which budget would have done: a clause after their number; empty where none is."""
        ends = [thought for thought in self.thoughts if not thought.over]
        if not ends:
            return ""
        inside = [thought for thought in ends if thought.end == "inside"]
        if len(inside) == len(ends):
            return "replies end inside their think block"
        late = [thought.tokens for thought in ends if thought.end == "late"]
        cut = [thought.tokens for thought in ends if thought.end == "cut"]
        if late:
            budget = 2 ** (max(late) - 1).bit_length()
            enough = f"--mechdrift-thinking-tokens {budget} would have done for {len(late)} of them"
            return f"replies still think when their budget is spent; {enough}"
        return f"replies still think when their budget is spent, some after {max(cut)} tokens"


@dataclass(frozen=True)
class RefusalReadings:
    """Both models' replies to the same test instructions, under every arm."""

    names: dict[On, tuple[str, ...]]
    """The instructions, for the reader."""
    kinds: dict[On, tuple[str, ...]]
    """Their categories."""
    outcomes_by: dict[tuple[Which, On, str], Outcomes]
    """By model, side and arm: `plain`, `own`, `other` (ablation on harmful, addition on harmless)."""
    site: str
    """Where the direction was read."""
    site_rule: str
    """How that place was chosen."""
    data: str
    """The data sets."""
    choice: str
    """What the rule chose among, in words."""
    parameters: dict[str, str]
    """Prompt form, score and what else defines the numbers."""
    must_refuse: Which = "post"
    """Which model must refuse for there to be a mechanism: post, for post-training brings it about; base where that was
    post-trained before and has it to lose."""
    prompts: str = ""
    """What was done to have the prompts, as in `prompts of base: no chat template: plain form`; empty where nothing was."""
    unanswered: Mapping[tuple[Which, str], Unmeasurable] = field(default_factory=dict)
    """By model and arm, why there are no outcomes."""

    def noted(self, note: str) -> str:
        """The note of a row of replies or of first tokens, with what was done to have the prompts."""
        return f"{note}; {self.prompts}" if self.prompts else note

    def outcomes(self, model: Which, on: On, arm: str = PLAIN) -> Outcomes:
        """What a model replied. Raises Unmeasurable where there are no outcomes."""
        if arm in (PLAIN, AT_ONCE) and (reason := self.unanswered.get((model, arm))):
            raise reason
        return self.outcomes_by[model, on, arm]

    def unsteered(self, model: Which, on: On) -> Outcomes:
        """What a model replied in the form in which it was steered: what an intervention is compared with."""
        at_once = {(model, on, AT_ONCE), (model, AT_ONCE)} & {*self.outcomes_by, *self.unanswered}
        return self.outcomes(model, on, AT_ONCE if at_once else PLAIN)

    def form_of_arms(self, model: Which) -> str:
        """What replies under interventions have of their own, as a clause; empty where it is nothing."""
        at_once = (model, "harmful", AT_ONCE) in self.outcomes_by
        return "; steered, and in the replies compared with that, it answers without a thought" if at_once else ""
