"""Headless Chromium, for tests that look at a page as people do."""

import contextlib
import shutil

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Chromium has no sandbox for root, as which containers run.
    "--no-sandbox",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextlib.contextmanager
def chromium():
    """A running browser of Playwright; skips the test where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(_NAMES)}: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        with contextlib.closing(browser):
            yield browser


class Visit:
    """A page in a window of some size, and what went on in it.

    Args:
        browser: of `chromium`.
        address: of the page.
        size: of the window in pixels.

    Attributes:
        page: of Playwright.
        requested: addresses of all that was loaded.
        errors: what the page's scripts complained about.
    """

    def __init__(self, browser, address, size):
        width, height = size
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.requested, self.errors = [], []
        self.page.on("request", lambda one: self.requested.append(one.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)

    def overflow(self):
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - window.innerWidth"
        )
