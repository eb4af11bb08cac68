"""The page of a record in a real browser: what readers, phones, printers and screen readers find; that nothing leaves it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from recorded import HOSTILE, full, record, row, written

from mechdrift.report.html import html
from mechdrift.report.series import view
from mechdrift.report.text import visible
from mechdrift.report.whole import Whole, read_whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 700}
LOOKS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": WIDE},
    "wide-dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True},
    "phone-dark": {"viewport": PHONE, "is_mobile": True, "has_touch": True, "color_scheme": "dark"},
}
"""How readers look at a page."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium or Chrome."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # containers are root
        yield started
        started.close()


@pytest.fixture(params=LOOKS)
def opened(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[list[Whole]], Page]]:
    """Open the page of these records; it may say nothing on the console and ask for nothing but itself."""
    context = browser.new_context(offline=True, **LOOKS[request.param])
    page = context.new_page()
    output: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: output.append(message.text))
    page.on("pageerror", lambda error: output.append(str(error)))
    page.on("dialog", lambda dialog: output.append(dialog.message))
    page.on("request", lambda one: requested.append(one.url))
    path = tmp_path / "page.html"

    def open_page(records: list[Whole]) -> Page:
        path.write_text(html(view(records)), encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_page
    assert requested == [path.as_uri()]
    assert not output
    context.close()


def everything(tmp_path: Path, text: str) -> list[Whole]:
    """An earlier run, and one whose record has all that a page shows."""
    earlier = read_whole(written(tmp_path / "earlier.json", record(row("knowledge.location"), post="runs/step-1", text=text)))
    return [earlier, full(tmp_path / "r.json", text)]


def test_a_page_is_readable(opened: Callable[[list[Whole]], Page], tmp_path: Path) -> None:
    """By eye: nothing is wider than the screen but what scrolls by itself, every picture is drawn, every link leads somewhere."""
    page = opened(everything(tmp_path, ""))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "drifted: 1 of 2 pairs did not hold: post drifted" in page.locator("h1").inner_text()
    drawn = page.locator("main svg").evaluate_all("all => all.map(one => [one.getBoundingClientRect(), one.children.length])")
    assert len(drawn) > 12
    assert all(box["width"] > 100 and box["height"] >= 20 and shapes > 1 for box, shapes in drawn)
    links = page.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert len(links) > 5
    assert all(page.locator(link).count() == 1 for link in links)


def test_a_page_is_heard(opened: Callable[[list[Whole]], Page], tmp_path: Path) -> None:
    """By a screen reader: axe finds no violation, contrast in light and dark included; tables have heads, pictures have words."""
    page = opened(everything(tmp_path, ""))
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    checked = {rule["id"] for rule in found.response["passes"]}
    assert checked >= {"color-contrast", "svg-img-alt", "html-has-lang", "document-title", "scrollable-region-focusable"}
    headed = page.locator("table:has(caption):has(thead th[scope=col]):has(tbody th[scope=row])")
    assert page.locator("table").count() == headed.count() > 5
    assert page.locator("main svg").count() == page.locator("main svg[role=img][aria-label]:has(title)").count()


def test_words_of_a_record_are_words(opened: Callable[[list[Whole]], Page], tmp_path: Path) -> None:
    """What a model says is shown, and does nothing: no script runs, no picture is loaded, nothing overflows."""
    page = opened(everything(tmp_path, HOSTILE + "<img src=x onerror=alert(1)>" + "w" * 300))
    assert page.locator("script, img, iframe").count() == 0
    assert visible(HOSTILE) in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_check_notices_a_script(browser: Browser, tmp_path: Path) -> None:
    """That nothing is said above is no accident: the policy refuses a script in the page, and the console has it."""
    page = browser.new_page()
    output: list[str] = []
    page.on("console", lambda message: output.append(message.text))
    text = html(view(everything(tmp_path, "")))
    (tmp_path / "page.html").write_text(
        text.replace("</main>", "<script>alert(1)</script><img src='http://127.0.0.1:9/x'></main>")
    )
    page.goto((tmp_path / "page.html").as_uri())
    assert sum("Content Security Policy" in line for line in output) == 2


def test_a_page_prints(browser: Browser, tmp_path: Path) -> None:
    """On paper: all of it, no wider than a sheet, without what is to be clicked."""
    page = browser.new_page()
    (tmp_path / "page.html").write_text(html(view(everything(tmp_path, ""))), encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 at 96 dots an inch, without its margins
    assert not page.locator("nav").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.locator(".wide").evaluate_all("all => all.filter(one => one.scrollWidth > 720).map(one => one.ariaLabel)")
    assert not wide
    assert page.pdf(format="A4").startswith(b"%PDF")
