"""Pictures: DOT for Graphviz, and SVG that is laid out here."""
