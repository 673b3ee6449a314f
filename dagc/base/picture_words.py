"""What pictures are called and how they may look, for parsers of arguments."""

from __future__ import annotations

from typing import Final, Literal

Theme = Literal["auto", "light", "dark"]
THEMES: Final[tuple[Theme, ...]] = ("auto", "light", "dark")
"""`auto`: light, and dark where the reader's screen is; what knows no screens, such as PNG and PDF, is light."""
VIEWS: Final = ("overview", "map", "layer", "lanes", "timeline", "memory", "path")
"""Of a phase."""
DOT_VIEWS: Final = ("overview", "layer", "lanes")
"""Those that Graphviz can draw as well."""
