"""Which pairs the knowledge suite asks: the shipped tables' or the user's, made by rule or as fixed by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mechdrift.checkpoints.config import context_of
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings.hand_set import HandSet
from mechdrift.prompts.pairs import NEGATED, Form, Found, put_together
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import Split, fact_tables
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.prompts.written_pairs import WrittenPair, written_pairs

COLUMNS = {"judged": "clean,corrupt", "cloze": "clean,corrupt,correct,other"}
OTHER: dict[Form, Form] = {"judged": "cloze", "cloze": "judged"}


@dataclass(frozen=True)
class PairRequest:
    """The pairs of one form."""

    form: Form
    seed: int
    written: Sequence[WrittenPair]
    """The user's; none: the tables'."""
    hand_set: HandSet
    context: int | None
    """Tokens that both models can read."""

    @classmethod
    def of(cls, pair: Pair, form: Form, seed: int, written: Sequence[WrittenPair], hand_set: HandSet) -> "PairRequest":
        """Of both models. Raises Unmeasurable where the user's file has nothing of this form."""
        chosen = [one for one in written if one.form == form]
        if written and not chosen:
            raise Unmeasurable(
                f"no pairs to ask as {form}: the file of --mechdrift-pairs has no rows {COLUMNS[form]}; "
                f"add some, or leave these rows out with -k {OTHER[form]}"
            )
        contexts = [context for context in map(context_of, (pair.base, pair.post)) if context is not None]
        return cls(form, seed, chosen, hand_set, min(contexts, default=None))

    @property
    def kinds(self) -> list[str]:
        """All that there are, negated ones last."""
        if self.written:
            return sorted({one.kind for one in self.written})
        tables = [table.kind for table in fact_tables()]
        negated = self.hand_set.knowledge_negated and self.form == "judged"
        return tables + [NEGATED + kind for kind in tables if negated]

    @property
    def by_hand(self) -> dict[str, str]:
        """How pairs are made otherwise than by rule."""
        made = {"pairs": self.hand_set.knowledge_pairs, "positions": self.hand_set.knowledge_positions}
        usual = {"pairs": HandSet.knowledge_pairs, "positions": HandSet.knowledge_positions}
        if self.written:
            made["pairs"] = usual["pairs"]
        return {name: way for name, way in made.items() if way != usual[name]}

    def found(self, recordings: Recorder, point: Checkpoint, kinds: Sequence[str], split: Split) -> Found:
        """The pairs of some kinds as the checkpoint's tokenizer reads them."""
        tokens = partial(encode, recordings.pool.tokenizer(point))
        start = self.hand_set.knowledge_positions
        found = []
        if self.written:
            for kind in kinds:
                of_kind = [one for one in self.written if one.kind == kind]
                try:
                    found.append(written_pairs(of_kind, tokens, self.seed, split, start))
                except Unmeasurable as error:  # no examples to judge by: other kinds may have some
                    count = sum(one.split == split for one in of_kind)
                    found.append(Found((), count, {str(error): count}))
        else:
            # Other splits only tell what base knows; pairs of entities have more units for that.
            pairing = self.hand_set.knowledge_pairs if split == "test" else HandSet.knowledge_pairs
            for table in fact_tables():
                for negated in (False, True):
                    if (NEGATED * negated) + table.kind in kinds:
                        found.append(table_pairs(table, tokens, self.form, self.seed, split, negated, pairing, start))
        return put_together(found).within(self.context)
