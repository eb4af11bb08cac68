"""What a run was asked to do: known from options and files of settings, before a checkpoint is looked at."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import pytest

from mechdrift.checkpoints.chain import Between, compared, neighbours
from mechdrift.errors import InputError
from mechdrift.findings.hand_set import HandSet, load_hand_set
from mechdrift.findings.registry import Finding, registered
from mechdrift.findings.tiers import TIERS, Tier, selected
from mechdrift.session.baselines import Baselines
from mechdrift.settings import Settings
from mechdrift.verdict.limits import Profile
from mechdrift.verdict.profiles import load_profile, project_at


@dataclass(frozen=True)
class Request:
    """What is compared with what, by which limits, and which findings."""

    settings: Settings
    profile: Profile
    baselines: Baselines
    findings: dict[str, Finding]
    """Those selected, by name."""
    hand_set: HandSet
    """Choices that are not left to their rules."""

    @cached_property
    def betweens(self) -> tuple[Between, ...]:
        """What is compared with what, in order."""
        return compared(self.stages, [name for name, _ in self.settings.posts], self.settings.lineage)

    @property
    def stages(self) -> list[str]:
        """Names of the checkpoints between base and post."""
        return [name for name, _ in self.settings.stages]

    @property
    def ends(self) -> list[Between]:
        """Base with each post."""
        return [between for between in self.betweens if not between.step]

    @property
    def steps(self) -> list[Between]:
        """The steps of the chain."""
        return neighbours(self.stages, [between.later for between in self.ends])

    def betweens_within(self, names: Collection[str]) -> list[Between]:
        """What is compared among these checkpoints alone."""
        return [between for between in self.betweens if {*between.names} <= {*names}]

    @property
    def tier(self) -> Tier:
        """How many items are used."""
        return TIERS[self.settings.tier]

    @property
    def tier_of_selected(self) -> Tier:
        """The tier without what --mechdrift-only leaves out, so that nothing is read for rows that nobody asks."""
        return replace(self.tier, left_out=self.tier.left_out | (registered().keys() - self.findings.keys()))

    @property
    def estimator(self) -> str:
        """The name of what post without a stage is made by."""
        return (self.settings.lineage_by or ("rerun" if self.settings.stage_logs else "task-vector")).replace("-", " ")


def request_of(config: pytest.Config, settings: Settings) -> Request:
    """Read profile, baselines and hand-set choices. Raises UsageError."""
    try:
        project = project_at(config.invocation_params.dir)
        profile = load_profile(settings.profile, project)
        baselines = Baselines(settings, project, profile)
        findings = selected(settings.only, TIERS[settings.tier])
        return Request(settings, profile, baselines, findings, load_hand_set(settings.hand_set))
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error
