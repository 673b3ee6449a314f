"""The site: every page has its place, and the check of what was built notices what is broken. CI builds it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from build_site import SETTINGS, faults
from conftest import ROOT

sys.path.insert(0, str(SETTINGS))
import navigation


def test_every_page_is_in_one_group() -> None:
    groups = (*navigation.GROUPS.values(), *navigation.BELOW.values())
    shown = Counter(page for group in groups for page in navigation.members(group))
    written = {str(p.relative_to(ROOT).with_suffix("")) for p in (ROOT / "docs").rglob("*.md")}
    assert set(shown) >= written - {navigation.START}
    assert set(shown.values()) == {1}


def test_pages_are_told_what_is_below_them() -> None:
    start, codes, other = ["# A"], ["# A"], ["# A"]
    navigation.add(navigation.START, start)
    navigation.add("docs/diagnostics", codes)
    navigation.add("docs/cost", other)
    assert start[0].count("{toctree}") == len(navigation.GROUPS) and "/docs/cost\n" in start[0]
    assert codes[0].count("{toctree}") == 1 and "/dagc/base/pages/E01\n" in codes[0]
    assert other == ["# A"]


GOOD = '<link rel="stylesheet" href="a.css"><h1 id="top">A</h1><a href="b.html#part">b</a><a href="https://example.org">c</a>'


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", None),
        ("b.html#part", "c.html", "a.html: there is no c.html"),
        ("b.html#part", "b.html#prt", "a.html: there is no part b.html#prt"),
        ("b.html#part", "#tp", "a.html: there is no part #tp"),
        ("b.html#part", "#top", None),
        ("b.html#part", "b.html#a%20part", None),
        ('href="a.css"', 'href="https://example.org/a.css"', "a.html: fetches https://example.org/a.css"),
        ('href="a.css"', 'href="//example.org/a.css"', "a.html: fetches //example.org/a.css"),
        ("<h1", '<img src="no.svg"><h1', "a.html: there is no no.svg"),
        ("<h1", '<script src="http://example.org/x.js"></script><h1', "a.html: fetches http://example.org/x.js"),
        ("<h1", "<style>@import 'https://example.org/f.css';</style><h1", "a.html: fetches https://example.org/f.css"),
        (
            "<h1",
            '<p style="background: url(https://example.org/p.png)"><h1',
            "a.html: fetches https://example.org/p.png",
        ),
        ("<h1", '<img src="data:image/png;base64,AA"><h1', None),
    ],
)
def test_what_is_broken_is_noticed(old: str, new: str, fault: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(GOOD.replace(old, new, 1) if old else GOOD)
    (tmp_path / "b.html").write_text('<h1 id="part">B</h1><h2 id="a part">C</h2>')
    (tmp_path / "a.css").write_text("p { background: url(data:image/png;base64,AA) }")
    assert list(faults(tmp_path)) == ([fault] if fault else [])


def test_style_sheets_fetch_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@font-face { src: url("https://example.org/f.woff2") }')
    assert list(faults(tmp_path)) == ["a.css: fetches https://example.org/f.woff2"]
