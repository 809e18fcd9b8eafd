"""A headless Chromium for tests of pages: opened from disk, watched for errors and requests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GIVEN = os.environ.get("FUSION_BROWSER")
NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: the tests may run as root in a container, and open only pages that they made.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000


@dataclass
class Opened:
    """A page and what went wrong on it: messages of errors, and addresses asked for besides the page's own."""

    page: "Page"
    errors: list[str]
    requests: list[str]

    def text(self, selector: str) -> str:
        """Return the text of the first element that `selector` finds."""
        return self.page.locator(selector).first.inner_text()

    def kept(self) -> int:
        """Return how many questions the browser of questions lets through."""
        return int(self.page.locator("#items-count").get_attribute("data-count") or -1)


@contextmanager
def launched() -> Iterator["Browser"]:
    """Start Chromium, or skip the test with a reason; where FUSION_BROWSER names one, fail instead."""
    executable = GIVEN or next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        missing("needs Chromium, and none is installed; set FUSION_BROWSER to its path")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        missing("needs the package playwright")
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        except Error as error:
            missing(f"{executable} does not start: {error}")
        yield browser
        browser.close()


def missing(reason: str) -> NoReturn:
    """Skip, or fail where somebody counts on the browser."""
    if GIVEN:
        pytest.fail(f"FUSION_BROWSER={GIVEN} is set, but: {reason}")
    pytest.skip(reason)


@contextmanager
def opened(browser: "Browser", path: Path, html: str, **context: Any) -> Iterator[Opened]:
    """Write a page to `path`, open it from disk and wait until it is drawn; `context` as for `Browser.new_context`."""
    path.write_text(html, encoding="utf-8")
    # Without smooth scrolling, so that nothing is waited for.
    values = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | context
    session = browser.new_context(**values)
    page = session.new_page()
    page.set_default_timeout(PATIENCE_MS)
    found = Opened(page=page, errors=[], requests=[])
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: found.requests.append(asked.url) if asked.url != path.as_uri() else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield found
    session.close()
