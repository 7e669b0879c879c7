"""Debian's Chromium, driven by Playwright: what a person sees and does on the page of a live bridge."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.vps_bridge.http.door import Door
from vps_bridge.http.sign_in import SignIns

PATIENCE_S = 60.0


@contextlib.contextmanager
def run_chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    # Its sandbox needs rights that root in a container does not have; it opens nothing but the bridge's page.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


def is_complaint(said: ConsoleMessage) -> bool:
    """Whether the browser says that something is wrong; that a request was refused the page says itself."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


@contextlib.contextmanager
def open_page(browser: Browser, door: Door, path: str = "/") -> Iterator[Page]:
    """A signed-in page; anything that its scripts or its policy complain about fails the test."""
    context = browser.new_context(base_url=door.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
    page.goto(f"/sign-in?link={SignIns(door.bridge.data_dir / 'bridge').make_link()}")
    if path != "/":
        page.goto(path)
    yield page
    context.close()
    assert complaints == []
