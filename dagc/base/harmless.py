"""Text from elsewhere (names, specs, files) where people, terminals, shells and CI logs read it."""

from __future__ import annotations

import re

CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
"""Characters that steer a terminal, end a line, or change the writing direction: never allowed in a spec, never printed."""


def plain(text: str) -> bool:
    """Whether a text has nothing but characters that are seen, spaces and ends of lines: most have, and no pattern is compiled for them."""
    return text.replace("\n", "").isprintable()


def control_in(text: str) -> re.Match[str] | None:
    """The first character of a text that is one of CONTROL."""
    return None if plain(text) else re.search(CONTROL, text)


def harmless(text: str) -> str:
    """Control characters made visible, tabs one column wide."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == " " else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def shortened(text: str, most: int) -> str:
    """At most so many characters, the last one of a longer text an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def in_json(text: str) -> str:
    """JSON text in which control characters are escaped."""
    return re.sub(CONTROL, lambda found: f"\\u{ord(found[0]):04x}", text)


def file_part(name: str) -> str:
    """A name as part of the name of a file that is written: no folder, nothing that a terminal or a shell reads."""
    return "".join("_" if c in "/\\" or not c.isprintable() else c for c in name)
