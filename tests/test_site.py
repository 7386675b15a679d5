"""The documentation as a site: built strictly, complete, and content with this machine alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings

from execution.states import OrderState

ROOT = Path(settings.BASE_DIR)
DOCS = ROOT / "docs"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


class Page(HTMLParser):
    """What a page loads, and the text of its paragraphs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.paragraphs: list[str] = []
        self._within = {"p": 0, "code": 0}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name == LOADED.get(tag)]
        if tag == "p":
            self.paragraphs.append("")
        if tag in self._within:
            self._within[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self._within:
            self._within[tag] -= 1

    def handle_data(self, data: str) -> None:
        if self._within == {"p": 1, "code": 0}:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", target],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return target


def pages(site: Path) -> Iterator[tuple[str, Page]]:
    for source in sorted(DOCS.rglob("*.md")):
        name = source.relative_to(DOCS).with_suffix(".html")
        yield str(name), Page(site / name)


def test_the_site_builds_and_asks_no_other_host(site: Path) -> None:
    asked = {(name, url) for name, page in pages(site) for url in page.loads if "//" in url}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]

    assert asked == set()
    assert styles
    assert not any(re.search(r"url\(['\"]?(https?:)?//", style) for style in styles)


def test_lists_and_blocks_are_read_as_such(site: Path) -> None:
    """The site's reader wants an empty line before a list, and four spaces within one."""
    odd = re.compile(r"```|^\s*(- |\* |\d{1,2}\. )|^\|", re.MULTILINE)
    texts = [(name, text) for name, page in pages(site) for text in page.paragraphs]

    assert len(texts) > 100
    assert [found for found in texts if odd.search(found[1])] == []


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_the_pages_beside_the_site_link_to_what_is_there(page: str) -> None:
    links = LINK.findall((ROOT / page).read_text(encoding="utf-8"))

    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("state", OrderState)
def test_the_diagram_of_states_has_every_state(state: OrderState) -> None:
    diagram = (DOCS / "concepts.md").read_text(encoding="utf-8")

    assert re.search(rf"\b{state}\b", diagram)
