"""Chromium, driven by playwright, with no network. Without either, tests are skipped."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest

PLACES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
).split()


@contextlib.contextmanager
def chromium() -> Iterator:
    """A browser; skips the test where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, PLACES)), None)
    if path is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


class Tab:
    """A page from the disk, with what it asked for and complained of.

    requests  all addresses but its own; each was refused
    errors    what stood in the console as an error or a warning, or was thrown
    """

    def __init__(self, browser, path, width: int = 1280, scheme: str = "light", script=True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            java_script_enabled=script,
        )
        self.requests, self.errors = [], []
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        own = path.as_uri()

        def judge(route):
            if route.request.url.partition("#")[0] == own:
                return route.continue_()
            self.requests.append(route.request.url)
            return route.abort()

        self.page.route("**/*", judge)
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(own)

    def heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def __enter__(self) -> "Tab":
        return self

    def __exit__(self, kind, *_) -> None:
        self.context.close()
        if kind is None:
            assert (self.requests, self.errors) == ([], [])
