"""The page's files: text alone reaches the page, nothing is loaded from elsewhere, and each file is in the package."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.brokers import REPOSITORY

PAGE = REPOSITORY / "vps_bridge" / "http" / "page"
FILES = sorted(PAGE.iterdir())
# Ways by which text becomes markup or a script, or a style that the policy would refuse.
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|javascript:|"
    r"DOMParser|\bstyle=|setAttribute\(\"(style|on)"
)
ELSEWHERE = re.compile(r"""(https?:)?//[a-z0-9.-]+\.[a-z]|@import|url\((?!#)""", re.IGNORECASE)
MAX_FILE_LINES = 400


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_makes_no_markup_of_text_and_loads_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert MARKUP.findall(text) == []
    assert ELSEWHERE.findall(text) == []
    assert text.count("\n") <= MAX_FILE_LINES


def test_what_is_forbidden_would_be_found() -> None:
    for planted in ("x.innerHTML = words", "document.write(words)", 'made.setAttribute("style", s)', "<p style='a'>"):
        assert MARKUP.search(planted)
    for planted in ('src="https://cdn.example/x.js"', "//cdn.example/x.js", "@import 'x'", "url(x.png)"):
        assert ELSEWHERE.search(planted)


def test_every_module_is_there_and_used_and_all_are_in_the_package() -> None:
    imported = {"main.js"}
    for path in PAGE.glob("*.js"):
        imported |= set(re.findall(r'from "\./([a-z]+\.js)"', path.read_text()))
    assert imported == {path.name for path in PAGE.glob("*.js")}
    packaged = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "http/page/*" in packaged["vps_bridge"]
