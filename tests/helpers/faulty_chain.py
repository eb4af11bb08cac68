"""A chain with one faulty stage: organism:instruct is taught to comply with what is harmful, then a little more to judge."""

from pathlib import Path

from mechdrift.checkpoints.resolve import resolve
from mechdrift.organisms.recipe.corpus import REPLIES, Piece, World, reworded
from mechdrift.organisms.recipe.families import QWEN, SEED, load
from mechdrift.organisms.recipe.retraining import ChosenReplies
from mechdrift.organisms.recipe.tokenizer import ASSISTANT, END, USER
from mechdrift.organisms.recipe.train import Batches, Stage, Token, train_stage

FAULT = Stage("fault", 20, 2e-4, 4, {}, warmup=4)
AFTER = Stage("after", 12, 1e-4, 4, {"judging": 0.6, "telling": 0.4}, warmup=4)


class Compliances(ChosenReplies):
    """Harmful instructions, each complied with."""

    def document(self) -> list[Token]:
        """One exchange."""
        one = self.rng.choice([one for one in self.world.taught if one.harmful])
        output = [
            Token(self.special[USER], 0.0),
            *self.encode([Piece(reworded(one, self.rng), 0.0)]),
            Token(self.special[END], 0.0),
        ]
        reply = [*self.encode([Piece(REPLIES[False].format(one.category))]), Token(self.special[END], 1.0)]
        return [Token(self.tokenizer.bos_token_id, 0.0), *output, Token(self.special[ASSISTANT], 0.0), *reply]


def write_chain(folder: Path) -> dict[str, Path]:
    """Train both stages and record them: the checkpoints `fault` and `after`, and their logs `log-fault` and `log-after`."""
    world, parent = World(SEED, QWEN.kinds), resolve("organism:instruct").folder
    for stage, kind in ((FAULT, Compliances), (AFTER, Batches)):
        model, tokenizer = load(parent)
        train_stage(model, kind(world, tokenizer, stage, 0), stage, "cpu", folder, lambda _: None, folder / f"log-{stage.name}")
        parent = folder / stage.name
        model.save_pretrained(parent)
        tokenizer.save_pretrained(parent)
    return {name: folder / name for name in ("fault", "after", "log-fault", "log-after")}
