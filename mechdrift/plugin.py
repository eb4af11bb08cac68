"""The pytest plugin: hooks only. Without --base it does nothing and imports nothing heavy."""

import pytest

from mechdrift.settings.checks import settings_of
from mechdrift.settings.command_line import add_options


@pytest.hookimpl(trylast=True)
def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, after other plugins have taken their short forms."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Our own hooks."""
    from mechdrift.session import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """--mechdrift-list prints and stops."""
    if not config.getoption("--mechdrift-list"):
        return None
    from mechdrift.session.listing import list_findings

    return list_findings(config)


def pytest_configure(config: pytest.Config) -> None:
    """With a pair given, set the comparing run up."""
    config.addinivalue_line("markers", "finding(name): the test gives the verdict of this mechdrift finding")
    config.addinivalue_line("markers", "limit(at_least, at_most, role): what this test's finding is judged by, over the profile")
    if (settings := settings_of(config)) is not None:
        from mechdrift.session.run import configure

        configure(config, settings)
