"""How long a reply is made: so many tokens, and where it thinks first, until the thought is over and as many after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from mechdrift.engine.generate.arms import Arm
from mechdrift.prompts.thoughts import Markers, answer_of, opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_UNFINISHED = 0.1  # of an arm's replies; with more it is looked how long they would have thought
TO_BEGIN = 12  # tokens by which a thought has begun: of the longest marker where letters are tokens
FOLLOWED = 8  # replies that are then followed
FURTHER = 4  # times the budget

End = Literal["none", "closed", "late", "cut", "inside"]
ENDS: tuple[End, ...] = get_args(End)
Generate = Callable[[Sequence[Sequence[int]], int], list[list[int]]]
"""Greedy continuations of prompts, of at most so many tokens, each up to a token that ends it."""


@dataclass(frozen=True)
class Budget:
    """Tokens of a reply."""

    reply: int = 64
    """Of what is said to the user."""
    thinking: int = 1024
    """Of the thought before it; 0: none is awaited."""

    @property
    def first(self) -> int:
        """Tokens after which it is looked whether a reply thinks."""
        return max(self.reply, TO_BEGIN) if self.thinking else self.reply

    @property
    def most(self) -> int:
        """Tokens of a reply that thinks."""
        return self.reply + self.thinking if self.thinking else self.reply


DEFAULT = Budget()


@dataclass(frozen=True)
class Thought:
    """The thought at the start of one reply."""

    tokens: int = 0
    """Its length, its end included, as far as it was followed."""
    end: End = "none"
    """none: there is none; closed: within the budget; late: beyond it; cut: not as far as it was followed; inside: the reply
    ended before it."""

    @property
    def over(self) -> bool:
        """Whether an answer can begin."""
        return self.end in ("none", "closed")


@dataclass
class GoingOn:
    """Which replies of one checkpoint are to have more tokens, asked after every round of generation."""

    tokenizer: "PreTrainedTokenizerBase"
    """The checkpoint's."""
    markers: Markers
    """Of thoughts."""
    inside: Sequence[bool]
    """Of every prompt, whether it ends within a thought."""
    rooms: Sequence[int]
    """Of every prompt, how many tokens of reply its context holds."""
    budget: Budget
    """How long replies are."""
    _followed: dict[str, set[int]] = field(default_factory=dict)
    """By arm, the replies that are followed beyond the budget."""
    _open: dict[str, set[int]] = field(default_factory=dict)
    """By arm, the replies that would have gone on."""

    @property
    def most(self) -> int:
        """Tokens of the longest reply, followed ones included."""
        return FURTHER * self.budget.thinking + self.budget.reply

    def more(self, arm: Arm, replies: Sequence[Sequence[int]], ended: Sequence[bool]) -> dict[int, int]:
        """How many more tokens replies get, by their places among the arm's; empty when all are done."""
        self._open[arm.name] = {place for place, over in enumerate(ended) if not over}
        if not self.budget.thinking or not arm.thinks:
            return {}
        wanted: dict[int, int] = {}
        spent: list[int] = []
        for place, reply in enumerate(replies):
            thought = self.thought(self._prompt(arm, place), reply, ended[place])
            if ended[place] or thought.end == "none":
                continue
            room = self.rooms[self._prompt(arm, place)] - len(reply)
            if thought.end == "closed":
                more = thought.tokens + self.budget.reply - len(reply) if thought.tokens <= self.budget.thinking else 0
            else:
                more = min(len(reply), self.budget.thinking - len(reply))  # twice as many each time: few prefills, few too many
                if more <= 0:
                    spent.append(place)
            if min(more, room) > 0:
                wanted[place] = min(more, room)
        return wanted or self._follow(arm, replies, spent)

    def _follow(self, arm: Arm, replies: Sequence[Sequence[int]], spent: Sequence[int]) -> dict[int, int]:
        """A few of those that still think, further on: to know which budget would have done. They stay unfinished."""
        if arm.name not in self._followed:
            enough = len(spent) > MOST_UNFINISHED * len(replies)
            self._followed[arm.name] = set(spent[:FOLLOWED]) if enough else set()
        most = FURTHER * self.budget.thinking
        wanted = {}
        for place in self._followed[arm.name].intersection(spent):
            length = len(replies[place])
            more = min(length, most - length, self.rooms[self._prompt(arm, place)] - length)
            if more > 0:
                wanted[place] = more
        return wanted

    def thought(self, prompt: int, reply: Sequence[int], ended: bool) -> Thought:
        """The thought of a reply to a prompt, by its place among all; ended: whether no token would follow the reply."""
        inside = self.inside[prompt]
        text = self.tokenizer.decode(reply)
        answer = answer_of(text, inside, self.markers)
        if answer is None:
            return Thought(len(reply), "inside" if ended else "cut")
        if not (inside or opening(text, self.markers)):
            return Thought()
        least, most = 0, len(reply)  # the first token with which the thought has ended
        while least < most:
            middle = (least + most) // 2
            if self._ends_by(reply[:middle], inside):
                most = middle
            else:
                least = middle + 1
        return Thought(least, "closed")

    def within(self, arm: Arm, place: int, reply: Sequence[int]) -> tuple[list[int], Thought]:
        """The reply at one of an arm's places, as far as its budget goes, and its thought."""
        thought = self.thought(self._prompt(arm, place), reply, place not in self._open.get(arm.name, ()))
        budget = self.budget
        allowed = budget.thinking if arm.thinks and budget.thinking else budget.reply
        if thought.end == "closed" and thought.tokens > allowed:
            thought = Thought(thought.tokens, "late")
        spoken = thought.tokens + budget.reply if thought.over else allowed
        return list(reply[:spoken]), thought

    def _ends_by(self, reply: Sequence[int], inside: bool) -> bool:
        text = self.tokenizer.decode(reply)
        return (inside or opening(text, self.markers) is not None) and answer_of(text, inside, self.markers) is not None

    @staticmethod
    def _prompt(arm: Arm, place: int) -> int:
        return place if arm.requested is None else arm.requested[place]


def in_rounds(
    generate: Generate, arm: Arm, prompts: Sequence[Sequence[int]], new_tokens: int, going_on: GoingOn | None
) -> list[list[int]]:
    """Replies to an arm's prompts, each as long as it is to be: those that are to go on are given again with what they have."""
    replies = generate(prompts, new_tokens)
    if going_on is None:
        return replies
    ended = [len(reply) < new_tokens for reply in replies]
    while wanted := going_on.more(arm, replies, ended):
        tokens = max(wanted.values())
        found = generate([[*prompts[place], *replies[place]] for place in wanted], tokens)
        for (place, most), reply in zip(wanted.items(), found, strict=True):
            ended[place] = len(reply) < min(tokens, most)
            replies[place] = replies[place] + reply[:most]
    return replies
