"""Mutants that nothing notices, each with the reason: `survivors.txt` has a line `# reason` before the mutants that it explains; a line that
ends in `*` is a function whose whole effect is a price, or that no plan of the mutants reaches: no mutant of it need
be noticed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

LIST = Path(__file__).parent / "survivors.txt"


@cache
def survivors() -> dict[str, str]:
    """Mutant -> why it survives."""
    found: dict[str, str] = {}
    reason = ""
    for line in LIST.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line.strip():
            found[line] = reason
    return found


def reason(name: str) -> str:
    """Why a mutant survives, or nothing."""
    found = survivors()
    return found.get(name, "") or next(
        (why for key, why in found.items() if key.endswith("*") and name.startswith(key[:-1])), ""
    )
