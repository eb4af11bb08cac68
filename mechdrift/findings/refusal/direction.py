"""Where refusal is read: the direction of both models, and the place that is chosen by rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings.refusal.outcomes import PLAIN, On
from mechdrift.findings.refusal.separation import Separated
from mechdrift.prompts.chat_forms import ChatPrompts
from mechdrift.prompts.replies import opener_tokens

DEEPEST = 0.8  # share of the blocks among which a direction is chosen (Arditi et al. 2024)
KL_AT_MOST = 0.1  # nats, of the first token on harmless instructions under ablation (as there)
CERTAIN = 1.645  # standard errors: the lower end of a 90% interval
SHOWN = 3  # candidates in the note
SIDES: tuple[On, ...] = ("harmful", "harmless")


@dataclass(frozen=True)
class Site:
    """A place of the stream at which a direction is read."""

    layer: int
    """Block."""
    back: int
    """End-of-instruction token, counted from the prompt's last, which is 0."""

    def __str__(self) -> str:
        """For example `resid_post[3] @ end-1`."""
        return f"resid_post[{self.layer}] @ end{f'-{self.back}' if self.back else ''}"


@dataclass(frozen=True)
class Fitted:
    """What one model's refusal direction is fitted on, at every place."""

    outputs: dict[On, np.ndarray]
    """Block outputs at the end-of-instruction tokens of fit prompts: float32 [instruction, layer, position, d_model]."""
    kept: dict[On, np.ndarray]
    """Which of them the model answers as it should, by the first token; all, where that would leave a side without any."""
    form: str
    """Prompt form."""
    note: str
    """What was left out."""

    @property
    def places(self) -> int:
        """End-of-instruction tokens."""
        return int(self.outputs["harmful"].shape[2])

    def at(self, site: Site, on: On) -> np.ndarray:
        """A side's outputs at a site: float64 [instruction kept, d_model]. Of a template that is shorter, its first token."""
        return self.outputs[on][self.kept[on], site.layer, self._place(site)].astype(np.float64)

    def _place(self, site: Site) -> int:
        """A site's token among those that were read."""
        return max(self.places - 1 - site.back, 0)

    def separated(self, site: Site) -> Separated:
        """Both sides' outputs at a site, of all instructions."""
        return Separated({on: self.outputs[on][:, site.layer, self._place(site)] for on in SIDES}, self.kept)

    def difference(self, site: Site) -> np.ndarray:
        """Mean of harmful minus mean of harmless: float64 [d_model]."""
        return np.asarray(self.at(site, "harmful").mean(0) - self.at(site, "harmless").mean(0))

    def direction(self, site: Site) -> np.ndarray:
        """The same with length 1: float32."""
        difference = self.difference(site)
        return np.asarray(difference / np.linalg.norm(difference), dtype=np.float32)

    def contributions(self, site: Site) -> np.ndarray:
        """What each pair of a harmful and a harmless instruction adds: rows whose mean is `difference`, float64 [pair, d_model].

        The nth of one side is paired with the nth of the other; one that was left out, or is not there, adds nothing. What both
        sides have in common is taken out first: it cancels in the mean, and would be noise in rows of one side.
        """
        sides = {on: self.at(site, on) for on in SIDES}
        common = (sides["harmful"].mean(0) + sides["harmless"].mean(0)) / 2
        rows = np.zeros((max(len(mask) for mask in self.kept.values()), self.outputs["harmful"].shape[3]))
        for on, sign in zip(SIDES, (1, -1), strict=True):
            places = np.flatnonzero(self.kept[on])
            rows[places] += sign * (sides[on] - common) * len(rows) / len(places)
        return rows


def openers_of(recordings: Recorder, point: Checkpoint, prompts: ChatPrompts) -> tuple[int, ...]:
    """Tokens with which a refusal opens, in this form."""
    return opener_tokens(recordings.pool.tokenizer(point), prompts.tail)


def fit(recordings: Recorder, point: Checkpoint, prompts: dict[On, ChatPrompts]) -> Fitted:
    """Read a model's fit prompts at every block and every end-of-instruction token."""
    outputs, kept = {}, {}
    for on, requested in prompts.items():
        outputs[on] = recordings.columns(point, requested.ids, [ends[0] for ends in requested.ends])
        odds = first_token_under(recordings, point, requested.ids, openers_of(recordings, point, requested), [Arm(PLAIN)])[
            0, :, 0
        ]
        kept[on] = odds > 0 if on == "harmful" else odds < 0
    note = ", ".join(f"{int(kept[on].sum())} of {len(kept[on])} {on}" for on in SIDES)
    if not all(mask.any() for mask in kept.values()):
        note += ": a side would be empty, so all"
        kept = {on: np.ones_like(mask) for on, mask in kept.items()}
    return Fitted(outputs, kept, prompts["harmful"].form, f"fitted on {note}")


def choose(recordings: Recorder, point: Checkpoint, fitted: Fitted, prompts: dict[On, ChatPrompts]) -> tuple[Site, str]:
    """The place whose direction, taken out, makes refusal least likely on harmful instructions; and the runners-up in words.

    Of the first 80% of the blocks and all end-of-instruction tokens; a candidate must induce refusal where it is added to
    harmless instructions (log-odds over 0) and may not move their first token by more than 0.1 nats where it is taken out (Arditi
    et al. 2024): beyond the error of that mean, or two models that are nearly one would be read at two places. Where all that
    induce move it more, that bound is doubled until one passes, and the words say so: a benign retrain may go beyond, and what
    the direction does is judged by its own rows. Raises Unmeasurable, with the figures, where none induces.
    """
    sites, bypass, kl, error, induce = tried(recordings, point, fitted, prompts)

    def summary(number: int) -> str:
        return f"{sites[number]} bypass {bypass[number]:.2f}, induce {induce[number]:.2f}, kl {kl[number]:.3f}"

    inducing = (induce > 0) & np.isfinite(kl)
    if not inducing.any():
        raise Unmeasurable(
            f"{point.spec}: none of {len(sites)} places has a direction that induces refusal (log-odds over 0); nearest: "
            f"{summary(int(induce.argmax()))}"
        )
    bound = KL_AT_MOST
    while not (passing := inducing & (kl - CERTAIN * error < bound)).any():
        bound *= 2
    order = np.lexsort((bypass, ~passing))
    best = "; ".join(summary(int(number)) for number in order[: min(SHOWN, int(passing.sum()))])
    wider = "" if bound == KL_AT_MOST else f" kl under {bound:g}, none under {KL_AT_MOST:g}"
    return sites[order[0]], f"{int(passing.sum())} of {len(sites)} places pass{wider}; {best}"


def tried(
    recordings: Recorder, point: Checkpoint, fitted: Fitted, prompts: dict[On, ChatPrompts]
) -> tuple[list[Site], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The candidates with their bypass, kl, its standard error, and induce (Arditi et al. 2024)."""
    layers = [layer for layer in range(point.layers) if layer < DEEPEST * point.layers]
    sites = [Site(layer, back) for layer in layers for back in range(fitted.places)]
    sites = [site for site in sites if np.linalg.norm(fitted.difference(site)) > 0]
    openers = openers_of(recordings, point, prompts["harmful"])
    ablated = [Arm(str(site), Ablated(fitted.direction(site))) for site in sites]
    added = [
        Arm(str(site), Added(fitted.direction(site), site.layer, float(np.linalg.norm(fitted.difference(site)))))
        for site in sites
    ]

    def requested(on: On, arms: Sequence[Arm]) -> np.ndarray:
        return first_token_under(recordings, point, prompts[on].ids, openers, arms)

    bypass, kl = requested("harmful", ablated)[..., 0].mean(1), requested("harmless", ablated)[..., 1]
    error = kl.std(1) / max(kl.shape[1] - 1, 1) ** 0.5
    return sites, bypass, kl.mean(1), error, requested("harmless", added)[..., 0].mean(1)


def arms_of(fitted: Fitted, other: Fitted, site: Site, harmful: int, harmless: int) -> list[Arm]:
    """Plain; own and the other model's direction, taken out on harmful prompts and added on harmless ones, which follow them.

    An addition is as long as the steered model's own difference of means, whosever the direction: its projection on the other's
    direction would be that times the cosine of the two, which is what the comparison is about.
    """
    coefficient = float(np.linalg.norm(fitted.difference(site)))
    first, second = tuple(range(harmful)), tuple(range(harmful, harmful + harmless))
    arms = [Arm(PLAIN)]
    for whose, model in (("own", fitted), ("other", other)):
        direction = model.direction(site)
        arms.append(Arm(f"{whose} ablation", Ablated(direction), first))
        arms.append(Arm(f"{whose} addition", Added(direction, site.layer, coefficient), second))
    return arms
