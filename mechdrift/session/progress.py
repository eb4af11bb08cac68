"""One line on work that takes longer than two seconds."""

from contextlib import AbstractContextManager, nullcontext

import pytest

from mechdrift.engine.batches import Progress
from mechdrift.report import terminal


def progress_line(config: pytest.Config, label: str) -> Progress:
    """A line that grows; silent in workers and where there is no terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")

    def write(line: str) -> None:
        if reporter is not None and capture is not None and reporter.isatty:
            with capture.global_and_fixture_disabled():
                reporter.write(line, flush=True)

    return terminal.progress_line(label, write)


def open_terminal(config: pytest.Config) -> AbstractContextManager[None]:
    """On a terminal lets the hub's own progress bars through; elsewhere they are captured as all else is."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or capture is None or not reporter.isatty:
        return nullcontext()
    opened: AbstractContextManager[None] = capture.global_and_fixture_disabled()
    return opened
