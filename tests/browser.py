"""A headless Chromium for tests of the dashboard, and pictures of what it shows.

Pictures are kept in `build/screenshots/`, which git ignores. Streamlit scrolls inside its page, so a picture of all of
it needs a window that is as high.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

from local import prerequisites
from tests.cloud import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = 1200, 390
HIGHEST = 3600
WITHIN_MS = 45_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Raises prerequisites.Missing with the command that installs it."""
    program = prerequisites.chromium()
    expect.set_options(timeout=WITHIN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def tab(browser: Browser, width: int = DESKTOP) -> Page:
    """A new one, of a desktop's width or a phone's."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(WITHIN_MS)
    return page


def settled(page: Page, within_ms: int = WITHIN_MS) -> None:
    """Returns once the page's script has run to its end and what it drew stands still."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState !== 'running'"
        " && !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')",
        timeout=within_ms,
    )
    page.wait_for_timeout(250)


def picture(page: Page, name: str, *, widths: tuple[int, ...] = (DESKTOP, PHONE)) -> None:
    """All of the page, as it is in windows of these widths. A page that is renewed all the time is taken as it is."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    before = page.viewport_size or {"width": DESKTOP, "height": 900}
    for width in widths:
        for _ in range(2):  # what is drawn only once it is seen makes the page higher
            page.set_viewport_size({"width": width, "height": _height(page)})
            with suppress(TookTooLong):
                settled(page, within_ms=4000)
        page.screenshot(path=os.fspath(SCREENSHOTS / f"{name}-{width}.png"))
        assert_fits(page, width)
    page.set_viewport_size(before)
    with suppress(TookTooLong):  # what is clicked while it moves may not notice
        settled(page, within_ms=4000)


def _height(page: Page) -> int:
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    return max(700, min(int(height), HIGHEST))


def assert_fits(page: Page, width: int) -> None:
    """Nothing is wider than the window: nobody has to push a page about on a phone."""
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= width, f"{wide} pixels wide in a window of {width}"
