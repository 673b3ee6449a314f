"""The words of a command as the parser of an engine takes them: each option with its value, and what is left over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ...base.frozen import record
from ...engines.facts import Facts, Option
from ...engines.others import Other, others

MOST_WORDS = 10_000
"""Of one command: no launcher writes so many."""


@record
class Told:
    """An option of a command. `name` as it is written; `value`: None for a switch; `path`: of the part of a setting that it gives
    (`--eplb-config.num_redundant_experts 8`); `off`: it switches the option off (`--no-enable-eplb`). `option`: what is known of it, `other`: that it says nothing of a plan; neither:
    no version that is known has it."""

    name: str
    value: str | None
    option: Option | None = None
    other: Other | None = None
    off: bool = False
    path: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.name if self.value is None else f"{self.name} {self.value}"


@record
class Words:
    """`plain`: words that belong to no option; `faults`: options without their value, and such with one that take none."""

    told: tuple[Told, ...]
    plain: tuple[str, ...]
    faults: tuple[str, ...]


@record
class Names:
    """Every spelling of an option of one engine."""

    options: dict[str, Option]
    others: dict[str, Other]

    def find(self, name: str) -> Option | Other | None:
        """Also by an unambiguous beginning, as the parsers do."""
        plain = normal(name)
        found: Option | Other | None = self.options.get(plain) or self.others.get(plain)
        if found is not None or not plain.startswith("--"):
            return found
        alike: dict[str | tuple[str, ...], Option | Other] = {}
        alike |= {option.key: option for known, option in self.options.items() if known.startswith(plain)}
        alike |= {other.names: other for known, other in self.others.items() if known.startswith(plain)}
        return next(iter(alike.values())) if len(alike) == 1 else None

    def turned_off(self, name: str) -> Option | Other | None:
        """The switch that a name is the contrary of."""
        plain = normal(name)
        for contrary, of in (("--no-", "--"), ("--disable-", "--enable-"), ("--enable-", "--disable-")):
            if plain.startswith(contrary):
                known = of + plain.removeprefix(contrary)
                found = self.options.get(known) or self.others.get(known)
                if found is not None and _takes(found) == "":
                    return found
        return None


def normal(name: str) -> str:
    """The parsers of vLLM and TensorRT-LLM take `_` for `-`."""
    return name.replace("_", "-") if name.startswith("--") else name


@cache
def _names(engine: str, version: str, known: tuple[Option, ...]) -> Names:
    options = {normal(name): option for option in known for name in (option.name, *option.also) if name[0] == "-"}
    rest = {normal(name): other for other in others(engine, version) for name in other.names}
    return Names(options, {name: other for name, other in rest.items() if name not in options})


def names(facts: Facts) -> Names:
    return _names(facts.name, facts.version, (*facts.options.values(), *facts.read))


def split(words: Sequence[str], facts: Facts) -> Words:
    """The words behind the program. An option that nobody knows takes the next word for its value, unless that is an option too."""
    known, told, plain, faults = names(facts), [], [], []
    rest = list(words[:MOST_WORDS])
    if len(words) > MOST_WORDS:
        faults.append(f"{len(words):,} words: more than {MOST_WORDS:,} are not read")
    at = 0

    def value() -> str | None:
        return rest[at] if at < len(rest) and not is_option(rest[at]) else None

    while at < len(rest):
        word = rest[at]
        at += 1
        if not is_option(word):
            plain.append(word)
            continue
        name, equals, given = word.partition("=")
        name, *path = name.split(".")  # also `-cc.mode`
        entry = known.find(name)
        if entry is None and not path and not equals and word[1] != "-" and known.find(word[:2]) is not None:
            name, equals, given = word[:2], "=", word[2:]  # `-O3`
            entry = known.find(name)
        off = entry is None and not path and (entry := known.turned_off(name)) is not None
        option, other = (entry, None) if isinstance(entry, Option) else (None, entry)
        said = ".".join([name, *path])
        takes = "=?" if entry is None else _takes(entry)
        if takes == "" and not path:
            if equals:
                faults.append(f"`{said}` takes no value, and gets `{given}`")
            told.append(Told(said, None, option, other, off))
            continue
        many: list[str] = [given] if equals else []
        if not equals and (first := value()) is not None:
            many.append(first)
            at += 1
            while takes == "+" and (more := value()) is not None:
                many.append(more)
                at += 1
        if not many and entry is not None and takes != "=?":
            faults.append(f"`{said}` has no value")
            continue
        told.append(Told(said, " ".join(many) if many else None, option, other, path=tuple(path)))
    return Words(tuple(told), tuple(plain), tuple(faults))


def is_option(word: str) -> bool:
    """A negative number is a value."""
    return len(word) > 1 and word[0] == "-" and not word[1:].replace(".", "", 1).isdigit()


def _takes(entry: Option | Other) -> str:
    """How many values: as `Other.values`."""
    if isinstance(entry, Other):
        return entry.values
    return "" if entry.switch else "+" if entry.many else "="
