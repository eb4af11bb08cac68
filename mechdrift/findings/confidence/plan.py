"""What confidence reads at most: its own questions, put to a recorder that counts and answers with zeros.

Where a result decides what is measured next, all that may be measured is.
"""

from mechdrift.engine.last_mlp import Ablation
from mechdrift.engine.stored_last_mlp import LastMLPReader, Neurons
from mechdrift.findings.confidence.entropy_neurons import CANDIDATES, COUNT
from mechdrift.findings.confidence.readings import prompts_of, tokens_of
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.judged_prompts import judged_gaps, judged_questions


def plan(inputs: Inputs) -> None:
    """The last MLP of both models, and the next token without its entropy neurons, their controls, and all of the former."""
    recordings, statements = inputs.recordings, inputs.affirmed
    points = (inputs.pair.base, inputs.pair.post)
    judged_gaps(recordings, inputs.pair.base, statements, inputs.seed, "choose")
    tokens = min(tokens_of(recordings, point) for point in points)
    some, near = tuple(range(COUNT)), tuple(range(COUNT * (1 + CANDIDATES)))
    every = Ablation(some, (0.0,) * COUNT)
    for point in points:
        prompts = prompts_of(recordings, point, inputs.texts)
        prompts = prompts.take([number for number, ids in enumerate(prompts.ids) if len(ids) > 1])
        reader = LastMLPReader(recordings, point, prompts, tokens)
        reader.table()
        reader.entropies(Neurons(prompts, near), [Ablation((0,), (0.0,))] * 2 * COUNT + [every])
        reader.activations(Neurons(prompts, near))
        judged_gaps(recordings, point, statements, inputs.seed, "test")
        judged = judged_questions(recordings, point, statements, inputs.seed, "test")[1]
        reader.answers(Neurons(judged, some), every)
        reader.activations(Neurons(judged, some))
