"""What a run says of itself before its tests."""

from typing import TYPE_CHECKING

from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.report import text
from mechdrift.run_start import same_files_warnings
from mechdrift.settings.declared import words_of
from mechdrift.settings.values import OFF

if TYPE_CHECKING:
    from mechdrift.run import ComparingRun


def header(run: "ComparingRun") -> list[str]:
    """What is compared, and how: lines at the head of pytest's output."""
    from mechdrift.engine.pool import pick_device, pick_dtype

    device = pick_device(run.settings.device)
    kinds = dict.fromkeys(dict(run.settings.stages), "stage ")
    if len(run.ends) > 1:
        kinds |= dict.fromkeys(dict(run.settings.posts), "post ")
    lines = [f"mechdrift: {kinds.get(name, '')}{name} {text.described(point)}" for name, point in run.points.items()]
    for between, changes in run.config_changes.items():
        keys = ", ".join(change.key for change in changes)
        lines.append(text.printable(f"mechdrift: configs of {between} differ in: {keys}"))
    lines += [text.printable(f"mechdrift: WARNING: {line}") for line in same_files_warnings(run)]
    cache = "off" if run.settings.cache == OFF or run.settings.device == TENSOR_PARALLEL else run.store_folder
    how = f"device {device}, dtype {pick_dtype(run.settings.dtype, device)}, cache {cache}"
    assert run.instructions
    for side, given in (("harmful", run.settings.harmful), ("harmless", run.settings.harmless)):
        if given is not None:
            lines.append(text.printable(f"mechdrift: {side} instructions: {getattr(run.instructions, side)}"))
    if run.reply_classifier:
        lines.append(text.printable(f"mechdrift: replies judged by {run.reply_classifier}"))
    if run.settings.texts is not None:
        lines.append(text.printable(f"mechdrift: texts: {run.texts}"))
    if run.hand_set.name:
        lines.append(f"mechdrift: hand-set {run.hand_set.name}: {run.hand_set.to_dict()}")
    lines.append(f"mechdrift: {how}, profile {run.profile.name} ({run.profile.gated_as_shipped} gated rows)")
    not_requested = len(run.tier.left_out)
    lines.append(f"mechdrift: tier {run.tier.name}" + (f", which leaves {not_requested} findings out" if not_requested else ""))
    if words := words_of(run.settings.given()):
        lines.append(text.printable(f"mechdrift: {' '.join(words)}"))
    if run.settings.baseline:
        lines.append(text.printable(f"mechdrift: compared with baseline {run.settings.baseline}"))
    return lines
