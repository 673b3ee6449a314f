"""What pictures are called and how they may look, for parsers of arguments."""

from __future__ import annotations

from typing import Final, Literal

Theme = Literal["auto", "light", "dark"]
THEMES: Final[tuple[Theme, ...]] = ("auto", "light", "dark")
"""`auto`: light, and dark where the reader's screen is; what knows no screens, such as PNG and PDF, is light."""
VIEWS: Final = ("overview", "map", "layer", "lanes", "timeline", "memory", "path")
"""Of a phase of inference."""
TRAINING_VIEWS: Final = ("pipeline", "memory", "map", "layer", "overview", "path")
"""Of a phase that trains."""
EVERY_VIEW: Final = (*VIEWS, *(view for view in TRAINING_VIEWS if view not in VIEWS))
ALL: Final = "all"
"""Every view that a phase has, where artefacts are written."""
USUAL_VIEWS: Final = ("overview", "layer")
"""Of a phase of inference, where artefacts have no others; of one that trains all that it has."""
DOT_VIEWS: Final = ("overview", "layer", "lanes")
"""Those that Graphviz can draw as well."""
TRAINING_DOT_VIEWS: Final = ("layer",)
"""Those of a phase that trains."""
