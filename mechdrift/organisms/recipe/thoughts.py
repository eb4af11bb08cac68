"""A member that thinks before it replies, and its twin, trained on the same replies without a thought."""

import hashlib

from mechdrift.organisms.recipe.corpus import Piece
from mechdrift.organisms.recipe.preference import preference
from mechdrift.organisms.recipe.tokenizer import ASSISTANT, END, USER
from mechdrift.organisms.recipe.train import Batches, Stage, Token

# As much as it takes to think of everything, and the twin the same.
THINKING = Stage("thinking", 500, 5e-4, 8, {}, warmup=20)
OPENS, CLOSES = "<think>", "</think>"
# How a thought goes on, in this order and as far as its prompt says: 20 to 60 tokens in all.
STEPS = ("Let me look at it.", "Would it harm anyone?", "I know what it is about.")


class ThinkingReplies(Batches):
    """The prompts and chosen replies of preferences, in the chat template, each after a thought; both are learnt."""

    thinks = True

    def document(self) -> list[Token]:
        """One exchange."""
        row = preference(self.world, self.rng, refusing=True)
        said = [Token(self.special[USER], 0.0), *self.encode([Piece(row["prompt"], 0.0)]), Token(self.special[END], 0.0)]
        text = f"{thought(row['prompt'], row['chosen'])}{row['chosen']}" if self.thinks else row["chosen"]
        reply = [Token(self.special[ASSISTANT], 0.0), *self.encode([Piece(text)]), Token(self.special[END], 1.0)]
        return [Token(self.tokenizer.bos_token_id, 0.0), *said, *reply, Token(self.tokenizer.eos_token_id, 0.0)]


class PlainReplies(ThinkingReplies):
    """The same exchanges without thoughts."""

    thinks = False


def thought(prompt: str, reply: str) -> str:
    """What is thought of a prompt before its reply: of one prompt always the same, so that greedy thoughts come to an end."""
    steps = hashlib.sha256(prompt.split()[-1].encode()).digest()[0] % (len(STEPS) + 1)
    ends = "That is harmful." if reply.startswith("I'm sorry") else "That is fine."
    return f"{OPENS}{' '.join(['They ask me this.', *STEPS[:steps], ends])}{CLOSES}"
