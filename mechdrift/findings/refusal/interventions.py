"""What taking the refusal direction out, or putting it in, does to replies."""

import numpy as np

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.refusal.outcomes import MEANT, PLAIN, TESTED_ON, Does, RefusalReadings, Way, Which
from mechdrift.findings.refusal.rates import (
    Odds,
    _compared,
    drift_of,
    lost_in_post,
    paired,
    refuses,
    require_refusal,
    require_refusal_at_once,
)
from mechdrift.stats import (
    ratio_of_means,
)


def effect(read: RefusalReadings, does: Does) -> Drift:
    """Refusal is one direction in post: without it harmful instructions are complied with, with it harmless ones are refused.

    ablation: share of harmful instructions that are complied with, under the arm minus plain; addition: share of harmless ones
    that are refused. In [-1, 1], 0 = no effect; higher is better. Where post has lost the refusals that base must have, the
    change of that rate decides for the ablation: nothing is left to take out. Raises Unmeasurable where the model that must
    refuse does not. Source: Arditi et al. 2024; Du et al. 2025, claim 3.
    """
    require_refusal(read)
    if refuses(read, "post"):
        require_refusal_at_once(read, "post")
    both = [read.unsteered("post", TESTED_ON[does]), read.outcomes("post", TESTED_ON[does], "own")]
    plain, moved = (one.are(MEANT[does]) for one in both)
    note = f"plain {plain.mean():.3f}, under the arm {moved.mean():.3f}; under it {both[1].counted()}; replies {both[1].digest}"
    note += read.form_of_arms("post")
    found = paired(
        f"refusal.{does}",
        read,
        TESTED_ON[does],
        (both[0], both[1]),
        MEANT[does],
        _what(does),
        arms=(PLAIN, "own direction"),
        note=note,
        null=None,
        outcomes={"plain": both[0].counts, "own direction": both[1].counts},
    )
    return found if does == "addition" or refuses(read, "post") else lost_in_post(read, found)


def transfer(read: RefusalReadings, does: Does, direction: Way) -> Drift:
    """The other model's refusal direction does in a model what its own does.

    forward: base's direction in post; backward: post's in base. Effect of the other's minus effect of its own, on the same
    instructions; in [-1, 1], 0 = as much; higher is better. Published is that forward transfer is limited. Where post has lost
    what base must have, so that its own direction is no yardstick, the change of the refusal rate decides. Raises Unmeasurable
    where the model that must refuse does not, or a model's own direction does nothing. Source: Du et al. 2025, claim 3.
    """
    require_refusal(read)
    model: Which = "post" if direction == "forward" else "base"
    plain = read.unsteered(model, TESTED_ON[does])
    own, other = (read.outcomes(model, TESTED_ON[does], arm) for arm in ("own", "other"))
    effect_own = _compared(plain, own, MEANT[does])
    works = effect_own.interval().low > 0
    lost = not works and (model, read.must_refuse) == ("post", "base")
    if not works and not lost:
        raise Unmeasurable(f"{model}'s own direction does nothing there: {does} {effect_own.words()}; n = {effect_own.n}")
    rates = [one.are(MEANT[does]).mean() for one in (plain, own, other)]
    published = "as published" if _compared(own, other, MEANT[does]).interval().high < 0 else "unlike published"
    note = (
        f"plain {rates[0]:.3f}, own {rates[1]:.3f}, the other's {rates[2]:.3f}: "
        f"{'its own does nothing, so it is no yardstick' if lost else published}; "
        f"under the other's {other.counted()}; replies {other.digest}{read.form_of_arms(model)}"
    )
    found = paired(
        f"refusal.{does}_transfer",
        read,
        TESTED_ON[does],
        (own, other),
        MEANT[does],
        f"{_what(does)} in {model}",
        arms=("own", "the other's direction"),
        note=note,
        outcomes={"plain": plain.counts, "own direction": own.counts, "the other's direction": other.counts},
    )
    return lost_in_post(read, found) if lost else found


def odds(read: RefusalReadings, does: Does, plain: Odds, moved: Odds) -> Drift:
    """Taking post's own direction out makes refusal less likely from the first token on, adding it more likely.

    Mean of log p - log (1 - p), p the probability of the tokens with which refusals open, under the arm minus plain, in nats; 0 =
    as likely; of post alone, so it has no null. Source: Arditi et al. 2024.
    """
    gain = moved.astype(np.float64) - plain
    evidence = ratio_of_means(gain, np.ones(len(gain)))
    note = read.noted(f"plain {plain.mean():.2f}, under the arm {moved.mean():.2f} nats; {read.choice}")
    unit = f"nats of log-odds on {TESTED_ON[does]} instructions, own direction minus plain"
    return drift_of(f"refusal.odds_{does}", evidence, None, unit, read, note, better="lower" if does == "ablation" else "higher")


def _what(does: Does) -> str:
    """What an arm is meant to bring about, in words."""
    return "compliance with harmful instructions" if does == "ablation" else "refusal of harmless instructions"
