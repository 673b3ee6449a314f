"""How Sphinx makes the site: the pages of the repository as they are, by the paths that they have there.

`python tools/build_site.py` builds it; the source folder is the root of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

import navigation  # noqa: E402
from moe_lexer import MoeLexer, SessionLexer  # noqa: E402

from dagc.base.version import VERSION  # noqa: E402

project = "dagc"
author = "The dagc authors"
copyright = author
version = release = VERSION

extensions = ["myst_parser"]
root_doc = navigation.START
include_patterns = list(navigation.PAGES)
exclude_patterns = sorted(navigation.AROUND)

myst_heading_anchors = 6
"""As code hosts make them, so that a link works in both."""
myst_enable_extensions = ["colon_fence"]
highlight_language = "none"

html_theme = "furo"
html_title = f"dagc {VERSION}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_additional_pages = {"index": "to_start.html"}
templates_path = ["templates"]


def setup(app: Sphinx) -> None:
    app.add_lexer("moe", MoeLexer)
    app.add_lexer("console", SessionLexer)
    app.connect("source-read", lambda app, page, text: navigation.add(page, text))
