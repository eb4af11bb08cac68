"""What is claimed of the context: one table."""

from mechdrift.checkpoints.config_changes import PARTS, reach_changes
from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.context import reach
from mechdrift.findings.context.readings import DATA, Context

OURS = "ours: prompts of usual length cannot tell"

CONTEXT: Family[Context] = Family(
    "context",
    (
        Claim(
            "settings",
            "What decides how far and how sharply attention sees is what it was: windows, rope, soft caps.",
            OURS,
            reach.settings,
            lambda context, part: (reach_changes(context.pair.base, context.pair.post, part), part),
            over(part=PARTS),
        ),
        Claim(
            "late_loss",
            "The post model predicts what stood far back in its context as well as the base model.",
            OURS,
            reach.late_loss,
            lambda context: ((read := context.late_losses).base, read.post, DATA),
        ),
    ),
)
FINDINGS = CONTEXT.findings
