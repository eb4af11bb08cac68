"""`--mechdrift-list`: what could be measured, with roles and limits."""

import pytest

from mechdrift.errors import InputError
from mechdrift.findings.registry import registered
from mechdrift.verdict.profiles import load_profile, project_at


def list_findings(config: pytest.Config) -> int:
    """Print a line a finding; returns the exit code."""
    try:
        profile = load_profile(config.getoption("--mechdrift-profile"), project_at(config.invocation_params.dir))
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error
    print(f"profile {profile.name}: {profile.gated_as_shipped} gated rows")
    for finding in sorted(registered().values(), key=lambda finding: finding.name):
        rule = profile.rule(finding.name)
        limit = f"{rule.limit} ({rule.limit.provenance})" if rule.limit else "no limit"
        print(
            f"\n{finding.name}: {rule.role}, {limit}\n  {finding.claim}\n  {finding.source}; {finding.needs} must have the effect"
        )
    return 0
