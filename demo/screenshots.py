"""`make screenshots`: the page's pictures in docs/, light and dark, made of the demo's conversation in Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZE: Any = {"width": 1200, "height": 800}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LINK = "/sign-in?link="
WAIT_MS = 30_000
EXIT_NOT_HERE = 2
COLOURS = 64


def main() -> int:
    """Run the demo, take the pictures, end the demo; return the exit code."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("chromium is not installed: apt-get install chromium\n")
        return EXIT_NOT_HERE
    command = [sys.executable, "-u", "-m", "demo", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            link = next((line.strip() for line in demo.stdout or () if LINK in line), None)
            if link is None:
                sys.stderr.write("the demo did not run: see `make demo`\n")
                return 1
            _take_pictures(link, chromium)
        finally:
            demo.send_signal(signal.SIGINT)
    return 0


def _take_pictures(link: str, chromium: str) -> None:
    # Its sandbox needs rights that root in a container does not have.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = _sign_in(browser, link)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.goto(link.partition(LINK)[0] + "/#/now")
            expect(page.get_by_role("heading", name="Agents")).to_be_visible()
            _save(page, f"page-now-{scheme}")
            page.goto(link.partition(LINK)[0] + "/#/conversations/call")
            expect(page.get_by_role("list", name="Segments").get_by_role("listitem").first).to_be_visible()
            _save(page, f"page-conversation-{scheme}")
        browser.close()


def _sign_in(browser: Browser, link: str) -> Page:
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(WAIT_MS)
    page.goto(link)
    return page


def _save(page: Page, name: str) -> None:
    page.evaluate("() => new Promise(requestAnimationFrame)")  # the canvas is drawn in the next frame
    picture = DOCS / f"{name}.png"
    page.screenshot(path=picture)
    _make_small(picture)
    sys.stdout.write(f"docs/{name}.png: {picture.stat().st_size:,} bytes\n")


def _make_small(picture: Path) -> None:
    """Keep the colours that matter: a repository holds every version of a picture for ever."""
    with Image.open(picture) as taken:
        few = taken.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
