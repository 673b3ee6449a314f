"""What a command says of a plan while it is read: a value for each thing that an option is, and a line on how it was read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...base.frozen import record
from ...engines.facts import Facts
from ...spec.model import Model

READ, IGNORED, MISSING, UNKNOWN, DEFAULT = "read", "ignored", "not in the plan", "unknown", "not said"
"""What becomes of an option. What is missing, a plan could have and this language has not."""


@record
class Line:
    """An option of a command: `outcome`, and in `words` what it was read as or why it was not."""

    option: str
    outcome: str
    words: str = ""


class WrongValue(Exception):
    """The value of an option is none that its engine takes. The message says what was expected."""


@dataclass
class Reading:
    """Of one command. `values`: by names that the readers know them by; `notes`: what is assumed; `faults`: what is contradictory or no
    value."""

    facts: Facts
    model: Model
    where: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def moe(self) -> bool:
        return "experts.count" in self.model.attributes

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def count(self, name: str, default: int = 1) -> int:
        found = self.values.get(name, default)
        assert isinstance(found, int)
        return found

    def word(self, name: str) -> str | None:
        found = self.values.get(name)
        return None if found is None else str(found)


Outcome = str | tuple[str, str]
"""What an option was read as; or what becomes of it, and words."""
Reader = Callable[[Reading, Any], Outcome]

MOST = 10**12
SUFFIX = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
"""Of whole numbers on command lines of vLLM: vllm/engine/arg_utils.py, human_readable_int."""


def whole(value: object, low: int = 0) -> int:
    """Raises WrongValue."""
    text = str(value).strip()
    found = re.fullmatch(r"(-?\d{1,18})([kKmMgG]?)", text) if not isinstance(value, bool) else None
    if found is None:
        raise WrongValue("a whole number")
    number = int(found[1]) * SUFFIX.get(found[2], 1)
    if not low <= number <= MOST:
        raise WrongValue(f"a whole number from {low} on")
    return number


def share(value: object) -> float:
    """Raises WrongValue."""
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0.0 < number <= 1.0:
        raise WrongValue("a number above 0 and up to 1")
    return number


def flag(value: object) -> bool:
    """Of a switch, or of a setting. Raises WrongValue."""
    if value is None or value is True or value is False:
        return value is not False
    if str(value).lower() in ("true", "1", "yes"):
        return True
    if str(value).lower() in ("false", "0", "no"):
        return False
    raise WrongValue("true or false")


def settings(value: object) -> Mapping[str, Any]:
    """JSON text, or what a file had for it. Raises WrongValue."""
    import json

    found: object = value
    if isinstance(value, str):
        if len(value) > 1 << 20 or value.count("{") + value.count("[") > 1000:
            raise WrongValue("a JSON object of a command's length")
        try:
            found = json.loads(value)
        except ValueError:
            raise WrongValue("a JSON object") from None
    if not isinstance(found, dict):
        raise WrongValue("a JSON object")
    return found
