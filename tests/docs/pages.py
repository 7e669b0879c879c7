"""The pages that people read, and the blocks in them.

Words behind the language of a fence are labels, which no reader sees. A block of `sh` says how it is proven:
`run=NAME` (a test runs it, see `RUNS`) or `needs=REASON` (its options are checked, and `NEEDS` says why no more).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"sh", "bash", "python", "js", "json", "toml", "ini", "yaml", "text", "mermaid"}
RUNS = {
    "walk": "tests/docs/test_walk.py",
    "operating": "tests/docs/test_blocks.py",
    "backend": "tests/docs/test_blocks.py",
    "embedded": "tests/docs/test_blocks.py",
    "engine": "tests/docs/test_engine_blocks.py",
    "http": "tests/e2e/test_http_door.py",
    "webhook": "tests/vps_bridge/webhook/test_post.py",
}
"""Which test runs the blocks of a label."""
NEEDS = {
    "network": "downloads gigabytes; `.ci/run` does the same from the same pins",
    "mac": "launchd is there on a Mac alone; tests/mac_agent/test_mac_service.py runs them with a stand-in",
    "root": "changes files, users, the firewall or services of the machine",
    "hub": "weights behind a personal licence",
    "secrets": "shows where a secret goes; the tests put their own there",
    "systemd": "tests/docs/test_walk.py starts, restarts and reloads services by a stand-in for systemctl",
    "deploy": "needs Docker or a cluster; tests/test_deploy.py checks all that can be checked without",
    "machines": "needs a second machine; tests/vps_bridge/test_several_bridges.py runs both bridges on one",
    "journal": "reads the journal of a machine with systemd",
}
"""Why a block is not run."""
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    labels: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """Its place, as a test's id."""
        return f"{self.page}:{self.line}"

    def label(self, name: str) -> str | None:
        """Return the value of a label `name=value`; of a bare one the empty text, and None where it has none."""
        for word in self.labels:
            found, _, value = word.partition("=")
            if found == name:
                return value
        return None


def page_names(*, with_decisions: bool = False) -> list[str]:
    """Return the pages, relative to the root: README, everything in docs/, and the READMEs of service files."""
    names = ["README.md", "CONTRIBUTING.md", "launchd/README.md", "systemd/README.md", "deploy/README.md"]
    names += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    names += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "clients").rglob("README.md"))]
    if with_decisions:
        names += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    return names


def read_page(name: str) -> str:
    """Return a page's text."""
    return (ROOT / name).read_text("utf-8")


def blocks_of(name: str) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    text = read_page(name)
    for found in _FENCE.finditer(text):
        language, *labels = found[1].split() or [""]
        yield Block(name, text.count("\n", 0, found.start()) + 1, language, tuple(labels), found[2])


def all_blocks(language: str | None = None, *, run: str | None = None) -> list[Block]:
    """Return the blocks of all pages in a language, or those that a test runs."""
    return [
        block
        for name in page_names()
        for block in blocks_of(name)
        if language in (None, block.language) and run in (None, block.label("run"))
    ]


def prose_of(name: str) -> str:
    """Return a page without its blocks."""
    return _FENCE.sub("", read_page(name))
