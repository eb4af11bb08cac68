"""What a run says of itself before its tests."""

from collections.abc import Iterable, Iterator

from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.models.devices import pick_device, pick_dtype
from mechdrift.models.families import listed
from mechdrift.report import text
from mechdrift.session.start import same_files_warnings
from mechdrift.session.state import State
from mechdrift.settings.declared import words_of
from mechdrift.settings.values import OFF


def found_on_load(points: Iterable[Checkpoint]) -> Iterator[str]:
    """Of families that are not listed what a run will know only once their model is loaded, and how to know it now; each once."""
    said = set()
    for point in points:
        family = str(load_config(point).get_text_config(decoder=True).model_type)
        if family not in said and listed(family) is None:
            said.add(family)
            yield f"{family} is not listed: its stream is found when it is loaded"
            yield f"  mechdrift inspect {point.spec}  says now what can be measured of it"


def header(state: State) -> list[str]:
    """What is compared, and how: lines at the head of pytest's output."""
    settings, inputs, request = state.settings, state.inputs, state.request
    device = pick_device(settings.device)
    kinds = dict.fromkeys(dict(settings.stages), "stage ")
    if len(request.ends) > 1:
        kinds |= dict.fromkeys(dict(settings.posts), "post ")
    lines = [f"mechdrift: {kinds.get(name, '')}{name} {text.described(point)}" for name, point in inputs.points.items()]
    lines += [text.printable(f"mechdrift: {line}") for line in found_on_load(inputs.points.values())]
    for between, changes in inputs.config_changes.items():
        keys = ", ".join(change.key for change in changes)
        lines.append(text.printable(f"mechdrift: configs of {between} differ in: {keys}"))
    lines += [text.printable(f"mechdrift: WARNING: {line}") for line in same_files_warnings(request, inputs.points)]
    cache = "off" if settings.cache == OFF or settings.device == TENSOR_PARALLEL else inputs.store_folder
    how = f"device {device}, dtype {pick_dtype(settings.dtype, device)}, cache {cache}"
    for name, used in (("statements", inputs.prompts.of_statements), ("pairs", inputs.prompts.of_pairs)):
        if used is not None:
            lines.append(text.printable(f"mechdrift: {name}: {used}"))
    for side, given in (("harmful", settings.harmful), ("harmless", settings.harmless)):
        if given is not None:
            lines.append(text.printable(f"mechdrift: {side} instructions: {getattr(inputs.prompts.instructions, side)}"))
    if inputs.reply_classifier:
        lines.append(text.printable(f"mechdrift: replies judged by {inputs.reply_classifier}"))
    if inputs.judge:
        lines.append(text.printable(f"mechdrift: replies judged by {inputs.judge}"))
    lines += [text.printable(f"mechdrift: {line}") for line in inputs.templates.lines()]
    if settings.texts is not None:
        lines.append(text.printable(f"mechdrift: texts: {inputs.prompts.texts}"))
    if request.hand_set.name:
        lines.append(f"mechdrift: hand-set {request.hand_set.name}: {request.hand_set.to_dict()}")
    lines.append(f"mechdrift: {how}, profile {state.profile.name} ({state.profile.gated_as_shipped} gated rows)")
    left_out = len(request.tier.left_out)
    lines.append(f"mechdrift: tier {request.tier.name}" + (f", which leaves {left_out} findings out" if left_out else ""))
    if words := words_of(settings.given()):
        lines.append(text.printable(f"mechdrift: {' '.join(words)}"))
    if settings.baseline:
        lines.append(text.printable(f"mechdrift: compared with baseline {settings.baseline}"))
    return lines
