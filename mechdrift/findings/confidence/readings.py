"""What confidence is measured on: both models' entropy neurons, and how sure they are with and without them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mechdrift.checkpoints.config import context_of, load_config
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.last_mlp import Ablation, null_directions
from mechdrift.engine.stored_last_mlp import LastMLPReader, Neurons
from mechdrift.engine.stored_recordings import Prompts, Recorder, require_same_tokens
from mechdrift.errors import Unmeasurable
from mechdrift.findings.confidence.entropy_neurons import Chosen, candidates, choose, controls
from mechdrift.findings.confidence.gaps import Entropies, Gaps, PerUnit, Sampled, entropies_of
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.judged_prompts import judged_gaps, judged_questions
from mechdrift.findings.judging import judged_kinds
from mechdrift.prompts.framing import Both
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text

T = TypeVar("T")
LONGEST = 128  # tokens of a text that are read
FEWEST = 4  # units of which a jackknife can be taken


@dataclass(frozen=True)
class OfModel:
    """What is known of one model; what cannot be had is the reason why."""

    chosen: Chosen | Unmeasurable
    """Its entropy neurons."""
    plain: PerUnit | Unmeasurable
    """Mean entropy of the next token."""
    entropies: Entropies | Unmeasurable
    """The same without some neurons."""
    gaps: Gaps | Unmeasurable
    """logit(" TRUE") - logit(" FALSE") of every judged statement."""
    ablated_gaps: Gaps | Unmeasurable
    """The same without its entropy neurons."""


@dataclass(frozen=True)
class Confidence:
    """Everything that the rows are computed from."""

    base: OfModel
    post: OfModel
    nearest: np.ndarray | Unmeasurable
    """For each of base's entropy neurons the neuron of post that writes most nearly so, and their cosine."""
    null_directions: int
    """k of rho."""
    texts: Sampled | Unmeasurable
    """What the next tokens are of."""
    statements: Sequence[Statement]
    """Those that are judged."""


def read(inputs: Inputs) -> Confidence:
    """Everything, in batches of one size."""
    one = inputs
    return one.recordings.at_one_batch(lambda: read_confidence(one.pair, one.recordings, one.texts, one.statements, one.seed))


def known(found: T | Unmeasurable) -> T:
    """What was found. Raises the reason why it was not."""
    if isinstance(found, Unmeasurable):
        raise found
    return found


def tried(find: Callable[..., T], *arguments: object) -> T | Unmeasurable:
    """What is found, or why it cannot be."""
    try:
        return find(*arguments)
    except Unmeasurable as error:
        return error


def read_confidence(
    pair: Pair, recordings: Recorder, texts: Sequence[Text], statements: Sequence[Statement], seed: int
) -> Confidence:
    """Read base, then post, each loaded once."""
    points = (pair.base, pair.post)
    both = [prompts_of(recordings, point, texts) for point in points]
    long = [number for number in range(len(texts)) if all(len(prompts.ids[number]) > 1 for prompts in both)]
    if not long:
        raise Unmeasurable(f"none of {len(texts)} texts has two tokens")
    both = [prompts.take(long) for prompts in both]
    sampled = tried(_sampled, [texts[number] for number in long], both, recordings.tokenizers(points), len(texts) - len(long))
    requested, questions = _judged(recordings, pair, statements, seed)
    tokens = min(tokens_of(recordings, point) for point in points)
    first, second = (LastMLPReader(recordings, point, prompts, tokens) for point, prompts in zip(points, both, strict=True))
    base = _of_model(first, sampled, questions[0])
    directions = tried(_directions, first, base.chosen)
    post = _of_model(second, sampled, questions[1])
    return Confidence(base, post, tried(_nearest, second, directions), null_directions(pair.base.width), sampled, requested)


def tokens_of(recordings: Recorder, point: Checkpoint) -> int:
    """Tokens that the tokenizer can give and the head has a row for; rows beyond pad the vocabulary."""
    return min(len(recordings.pool.tokenizer(point)), int(load_config(point).get_text_config(decoder=True).vocab_size))


def prompts_of(recordings: Recorder, point: Checkpoint, texts: Sequence[Text]) -> Prompts:
    """The texts up to LONGEST tokens; what counts begins at the second one: before it nothing is known of the text."""
    ids, _ = encode(recordings.pool.tokenizer(point), [one.text for one in texts])
    longest = min(LONGEST, context_of(point) or LONGEST)
    return Prompts([row[:longest] for row in ids], [1] * len(ids), [()] * len(ids))


def _sampled(texts: Sequence[Text], both: Sequence[Prompts], tokenizers: Both, left_out: int) -> Sampled:
    """The texts by unit. Raises Unmeasurable where the models do not read the same."""
    require_same_tokens(both[0], both[1], tokenizers)
    units = {text.unit: text.kind for text in texts}
    if len(units) < FEWEST:
        raise Unmeasurable(f"{len(units)} texts of two tokens or more: {FEWEST} needed for a jackknife")
    place = {unit: number for number, unit in enumerate(units)}
    cut = sum(len(ids) == LONGEST for ids in both[0].ids)
    note = f"{len(texts)} texts{f', {cut} of them up to token {LONGEST}' if cut else ''}"
    note += f", {left_out} of one token left out" if left_out else ""
    return Sampled(tuple(units), tuple(units.values()), np.array([place[text.unit] for text in texts]), note)


def _judged(
    recordings: Recorder, pair: Pair, statements: Sequence[Statement], seed: int
) -> tuple[list[Statement], list[Prompts] | list[Unmeasurable]]:
    """The statements that are judged, of the kinds that base can judge, and how each model is prompted; or why it is not."""
    affirmed = [statement for statement in statements if not statement.negated]
    try:
        kinds, _ = judged_kinds(judged_gaps(recordings, pair.base, affirmed, seed, "choose"), affirmed)
        affirmed = [statement for statement in affirmed if statement.kind in kinds]
        both = [judged_questions(recordings, point, affirmed, seed, "test") for point in (pair.base, pair.post)]
        questions = [prompts for _, prompts in both]
        require_same_tokens(questions[0], questions[1], recordings.tokenizers(pair.points))
        return [affirmed[index] for index in both[0][0]], questions
    except Unmeasurable as error:
        return [], [error, error]


def _of_model(reader: LastMLPReader, sampled: Sampled | Unmeasurable, questions: Prompts | Unmeasurable) -> OfModel:
    """All of one model."""
    chosen = tried(lambda: choose(reader.table()))
    gaps = tried(_gaps, reader, questions)
    if isinstance(chosen, Unmeasurable):  # its entropy is known all the same
        return OfModel(chosen, tried(_plain, reader, sampled), chosen, gaps, chosen)
    without = tried(_without, reader, sampled, chosen)
    if isinstance(without, Unmeasurable):
        return OfModel(chosen, without, without, gaps, without)
    entropies, ablation = without
    return OfModel(chosen, entropies.plain, entropies, gaps, tried(_ablated_gaps, reader, questions, ablation))


def _plain(reader: LastMLPReader, sampled: Sampled | Unmeasurable) -> PerUnit:
    """Mean entropy, with no neuron looked at."""
    texts = known(sampled)
    return texts.by_unit([row[:, 0] for row in reader.entropies(Neurons(reader.prompts, ()), ())])


def _without(reader: LastMLPReader, sampled: Sampled | Unmeasurable, chosen: Chosen) -> tuple[Entropies, Ablation]:
    """Entropies with and without neurons, and the ablation of all entropy neurons at once."""
    texts = known(sampled)
    near = sorted({*chosen.neurons}.union(*candidates(chosen)))
    read = Neurons(reader.prompts, tuple(near))
    activations = reader.activations(read).astype(np.float64)
    means = dict(zip(near, activations.mean(0).tolist(), strict=True))
    others = controls(chosen, dict(zip(near, activations.std(0).tolist(), strict=True)))
    every = [(neuron,) for neuron in (*chosen.neurons, *others)] + [chosen.neurons]
    ablations = [Ablation(group, tuple(means[neuron] for neuron in group)) for group in every]
    return entropies_of(reader.entropies(read, ablations), texts), ablations[-1]


def _gaps(reader: LastMLPReader, questions: Prompts | Unmeasurable) -> Gaps:
    """logit(" TRUE") - logit(" FALSE")."""
    logits = reader.recorder.logits(reader.checkpoint, known(questions)).astype(np.float64)
    return logits[:, 0] - logits[:, 1]


def _ablated_gaps(reader: LastMLPReader, questions: Prompts | Unmeasurable, ablation: Ablation) -> Gaps:
    """The same without neurons, whose means are those on the texts."""
    logits = reader.answers(Neurons(known(questions), ablation.neurons), ablation)[:, 1].astype(np.float64)
    return logits[:, 0] - logits[:, 1]


def _directions(reader: LastMLPReader, chosen: Chosen | Unmeasurable) -> np.ndarray:
    """What entropy neurons write."""
    return reader.directions(known(chosen).neurons)


def _nearest(reader: LastMLPReader, directions: np.ndarray | Unmeasurable) -> np.ndarray:
    """The other model's neurons that write most nearly so. Raises Unmeasurable for another width."""
    if known(directions).shape[1] != reader.checkpoint.width:
        raise Unmeasurable(f"widths differ: base {known(directions).shape[1]}, post {reader.checkpoint.width}")
    return reader.nearest(known(directions))
