"""JUnit XML: a suite a record, a case a row."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from mechdrift.report.outcome import compared, ended, sentence, started, why_it_fails
from mechdrift.report.series import View
from mechdrift.report.text import visible, waiver, was
from mechdrift.report.whole import Whole
from mechdrift.verdict.failing import holds
from mechdrift.verdict.row import StoredRow

RUN_CASE = "run"
FAILURES = {"drifted", "undecided"}
NOT_COMMON = "disabled"
"""An attribute that junit-xml writes and the common schema does not know."""


def junit(shown: View) -> str:
    """Failure: a gate drifted or is undecided. Error: one is unmeasurable, or a test ended with one.

    Skipped: no number, or a gate that does not hold and is let pass. A run that is not green by its gates has a case of its own,
    where no row says so.
    """
    from junit_xml import TestSuite

    suites = ElementTree.Element("testsuites")
    for whole in shown.records:
        cases = [*(_case(whole, row) for row in whole.rows), *_of_the_run(whole)]
        name = visible(f"mechdrift {whole.path.name}")
        about = {"compared": visible(compared(whole)), "outcome": visible(ended(whole))}
        suites.append(TestSuite(name, cases, timestamp=started(whole), properties=about).build_xml_doc())
    for suite in suites:
        suite.attrib.pop(NOT_COMMON)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _case(whole: Whole, row: StoredRow) -> Any:
    from junit_xml import TestCase

    text = "\n".join(map(visible, _summary(row)))
    case = TestCase(visible(row.label), classname=visible(f"mechdrift.{row.finding}"), stdout=text)
    message = visible(f"{row.verdict}: {row.reason}")
    why = why_it_fails(whole, row)
    if why & FAILURES:
        case.add_failure_info(message, text, visible(row.verdict))
    elif why:
        case.add_error_info(message, text, visible(row.verdict))
    elif row.role == "gate" and not holds(row):
        case.add_skipped_info(visible(f"{row.verdict}, let pass: {row.reason}"), text)
    elif row.estimate is None:
        case.add_skipped_info(message, text)
    return case


def _of_the_run(whole: Whole) -> Iterator[Any]:
    """An error where a run without verdict has no row that is one; skipped where it passes by leave, or compared nothing."""
    from junit_xml import TestCase

    if whole.verdict.verdict == "held" or any(why_it_fails(whole, row) for row in whole.rows):
        return
    case = TestCase(RUN_CASE, classname="mechdrift", stdout=visible(ended(whole)))
    (case.add_skipped_info if whole.verdict.passes else case.add_error_info)(visible(ended(whole)))
    yield case


def _summary(row: StoredRow) -> list[str]:
    """A row in lines."""
    lines = [row.claim, sentence(row)]
    lines += [f"site {row.site}; n = {row.n}"] if row.estimate is not None else []
    lines += [f"note {row.note}"] if row.note else []
    lines += [f"baseline {was(row)}; {row.baseline.reason}"] if row.baseline else []
    return lines + ([waiver(row)] if row.waiver else [])
