"""What an engine makes of one server, while it is written: options, notes, and the rules that the plan breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...base.frozen import record
from ...cost.footprint import Memory
from ...engines.facts import Facts, Option, Rule
from .degrees import EngineDegrees
from .words import Shell

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@record
class Refusal:
    """A rule that the plan breaks, and how."""

    why: str
    rule: Rule

    @property
    def text(self) -> str:
        return f"{self.why} ({self.rule.source})" if self.rule.source else self.why


@dataclass
class ServerDraft:
    """`split`: another server runs the other phase. `memory`: of its phases, where they are compiled. `notes`: what the options leave
    open; `verdict`: what does not fit."""

    facts: Facts
    layout: EngineDegrees
    model: str
    split: bool
    memory: Mapping[str, Memory] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, object] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return self.facts.name

    @property
    def lacking(self) -> list[str]:
        """Of what is refused, what the engine can do and is not written for it yet."""
        return [one.why for one in self.refused if one.rule.lacking]

    @property
    def exchange(self) -> str | None:
        """The engine's word for the kernels that all of its phases name for tokens; None: they name none, or it has no word."""
        named = {phase.exchange for phase in self.layout.phases}
        words: dict[str | None, str] = self.facts.words.get("exchanges", {})
        return words.get(named.pop()) if len(named) == 1 else None

    def by_vendor(self, key: str) -> str:
        """The engine's word on GPUs of this vendor."""
        words: dict[str, str] = self.facts.words[key]
        return words[self.layout.spec.hardware.vendor]

    def has(self, key: str) -> bool:
        return key in self.facts.options

    def name(self, key: str) -> str:
        return self.facts.options[key].name

    def flag(self, key: str, value: object = True) -> None:
        self.put(self.facts.options[key], value)

    def put(self, option: Option, value: object) -> None:
        """True: a switch, or a setting that is on."""
        if option.is_flag:
            self.flags += [option.name] if value is True else [option.name, word(value)]
        elif option.is_environment:
            self.environment[option.name] = "1" if value is True else word(value)
        else:
            *path, last = option.name.split(".")
            at: dict[str, object] = self.config
            for step in path:
                inner = at.setdefault(step, {})
                assert isinstance(inner, dict)
                at = inner
            at[last] = None if value is NOTHING else value

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def refuse(self, when: bool, why: str, rule: str = "") -> None:
        if when:
            self.refused.append(Refusal(why, self.facts.rules.get(rule, Rule(rule))))

    def lack(self, when: bool, why: str, rule: str = "") -> None:
        """Refuse what the engine can do, and what is not written for it yet."""
        if when:
            self.refused.append(Refusal(why, self.facts.rules.get(rule, Rule(rule, lacking=True))))

    def ordered(self, attention: Sequence[str], experts: Sequence[str] = ()) -> None:
        """Refuse a plan whose GPUs are other ranks than the engine makes of them."""
        for what, order in (("attention", attention), ("experts", experts)):
            if not order or (what == "experts" and not self.layout.moe):
                continue
            wrong = self.layout.misplaced(order)
            self.refuse(
                bool(wrong), f"it numbers GPUs by {', '.join(order)} (outermost first) for {what}: {wrong}", "order"
            )


class _Nothing:
    """The value of a setting that is `null`, which is not the same as leaving it out."""


NOTHING = _Nothing()

Value = Callable[[ServerDraft], object]
"""What of the plan an option is; None: it is left out."""
Check = Callable[[ServerDraft], str]
"""How a plan breaks a rule; nothing: it keeps it."""


def word(value: object) -> str:
    if isinstance(value, Shell):
        return value
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def judge(draft: ServerDraft, checks: Mapping[str, Check]) -> None:
    """Every rule of the data file, in its order."""
    for rule in draft.facts.rules.values():
        check = checks.get(rule.name)
        if check is not None and (why := check(draft)):
            draft.refused.append(Refusal(why, rule))


def fill(draft: ServerDraft, values: Mapping[str, Value]) -> None:
    """Every option of the data file that has a value, in its order."""
    for option in draft.facts.options.values():
        if option.value and (value := values[option.value](draft)) is not None:
            draft.put(option, value)
