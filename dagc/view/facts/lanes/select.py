"""`--select` and `--hops`: which steps are in the picture, on which GPUs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ....base.diagnostics import did_you_mean
from ....plan.result import PhaseResult
from ..critical import critical
from .shown_part import Choice, refused
from .steps import Mask, Part, Program, Step

Masks = dict[Part, Mask]
NUMBERS = re.compile(r"(-?\d{1,12})(?:\.\.(-?\d{1,12}))?")
KEYS = ("critical", "gpu", "layer", "stage", "microbatch", "op")
HELP = "critical, gpu:0..7, layer:3, layer:NAME, stage:0, microbatch:0, op:NAME (an op, a block or a kind)"


def select(program: Program, choice: Choice) -> Masks:
    """The steps that are in the picture, on which ranks.

    Raises SpecError when a text is not understood or nothing is selected."""
    everything = {part: _shared(program, part) for part in program.parts}
    found = everything
    for text in choice.select:
        chosen = _one(program, text, everything)
        found = {part: found[part] & mask for part, mask in chosen.items() if part in found}
        found = {part: mask for part, mask in found.items() if mask.any()}
    if not found:
        raise refused(f"`{' '.join(f'--select {t}' for t in choice.select)}` selects nothing in {program.result.name}")
    for _ in range(choice.hops):
        grown = _grown(program, found)
        if all(part in found and (mask == found[part]).all() for part, mask in grown.items()):
            break
        found = grown
    return {part: found[part] for part in program.parts if part in found}


def _shared(program: Program, part: Part) -> Mask:
    return np.broadcast_to(np.True_, (len(program.steps(part)), program.ranks(part.stage)))


def _one(program: Program, text: str, everything: Masks) -> Masks:
    key, colon, values = text.partition(":")
    if key == "critical" and not colon:
        return _critical(program)
    chooser = CHOOSERS.get(key)
    if chooser is None or not values.strip():
        near = did_you_mean(key, KEYS) if chooser is None and key != "critical" else None
        raise refused(f"`--select {text}` is not understood", f"did you mean `{near}`?" if near else f"known: {HELP}")
    return chooser(program, _Values(program.result, key, values), everything)


class _Values:
    """`0..3,7,sparse`: numbers, ranges and names. Each is one that the phase has."""

    def __init__(self, result: PhaseResult, key: str, text: str) -> None:
        self.result, self.key, self.text = result, key, text
        self.words = [word.strip() for word in text.split(",")]

    def numbers(self, known: Iterable[int]) -> set[int]:
        """The known numbers that are asked for; other words are left."""
        known = set(known)
        numbers: set[int] = set()
        for word in self.words:
            match = NUMBERS.fullmatch(word)
            if match is not None:
                low, high = int(match[1]), int(match[2] or match[1])
                inside = {n for n in known if low <= n <= high}
                if not inside:
                    raise refused(f"`--select {self.key}:{self.text}`: {self.result.name} has no {self.key} {word}")
                numbers |= inside
        return numbers

    def only_numbers(self, known: Iterable[int]) -> set[int]:
        for word in self.words:
            if NUMBERS.fullmatch(word) is None:
                raise refused(f"`--select {self.key}:{self.text}`: `{word}` is not a number", f"known: {HELP}")
        return self.numbers(known)

    def names(self, known: Iterable[str], *, numbers: bool = False) -> set[str]:
        """The words, each of them known; with `numbers`, those that are numbers are left."""
        known = sorted(set(known))
        words = [w for w in self.words if not (numbers and NUMBERS.fullmatch(w))]
        for word in words:
            if word not in known:
                near = did_you_mean(word, known)
                hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
                raise refused(f"`--select {self.key}:{self.text}`: {self.result.name} has no `{word}`", hint)
        return set(words)


def _gpu(program: Program, values: _Values, everything: Masks) -> Masks:
    stages = program.result.seats
    wanted = values.only_numbers(program.result.gpus)
    columns = {s.index: np.isin(np.asarray(s.gpus), sorted(wanted)) for s in stages}
    return {part: mask & columns[part.stage] for part, mask in everything.items() if columns[part.stage].any()}


def _layer(program: Program, values: _Values, everything: Masks) -> Masks:
    layers = [p for p in everything if p.run is not None]
    ends = program.ends  # the embedding and the head go by their names
    numbers = values.numbers({p.number for p in layers if p.number is not None and p.segment not in ends})
    names = values.names({p.segment for p in layers}, numbers=True)
    return {p: everything[p] for p in layers if (p.number in numbers and p.segment not in ends) or p.segment in names}


def _stage(program: Program, values: _Values, everything: Masks) -> Masks:
    wanted = values.only_numbers({p.stage for p in everything})
    return {part: mask for part, mask in everything.items() if part.stage in wanted}


def _microbatch(program: Program, values: _Values, everything: Masks) -> Masks:
    wanted = values.only_numbers({p.microbatch for p in everything})
    return {part: mask for part, mask in everything.items() if part.microbatch in wanted}


def _op(program: Program, values: _Values, everything: Masks) -> Masks:
    def words(step: Step) -> tuple[str, str, str]:
        return step.name, step.block, step.kind

    wanted = values.names({w for part in everything for s in program.steps(part) for w in words(s) if w})
    rows = {
        part: np.array([not wanted.isdisjoint(words(s)) for s in program.steps(part)])[:, None] for part in everything
    }
    return {part: mask & rows[part] for part, mask in everything.items()}


CHOOSERS: Mapping[str, Callable[[Program, _Values, Masks], Masks]] = {
    "gpu": _gpu,
    "layer": _layer,
    "stage": _stage,
    "microbatch": _microbatch,
    "op": _op,
}


def _critical(program: Program) -> Masks:
    """The executions of the critical path, each on the rank that it waited for."""
    masks: Masks = {}
    for visit in (v for v in critical(program.result) if not v.is_host):
        part = program.at[visit.stage, visit.microbatch, visit.layer]
        mask = masks.setdefault(part, np.zeros((len(program.steps(part)), program.ranks(part.stage)), bool))
        mask[program.row(part, visit.op, visit.lane), program.rank(visit.stage, visit.index)] = True
    return masks


def _grown(program: Program, found: Masks) -> Masks:
    """One data edge further in both directions. A collective is one node for its whole group."""
    whole = {part: _closed(program, part, mask) for part, mask in found.items()}
    out = {part: mask.copy() for part, mask in whole.items()}

    def mark(part: Part, row: int, ranks: Mask) -> None:
        if ranks.any():
            if part not in out:
                out[part] = np.zeros((len(program.steps(part)), program.ranks(part.stage)), bool)
            out[part][row] |= ranks

    for part in program.parts:
        before = program.before.get(part)
        if part not in whole and (before is None or before not in whole):
            continue
        for need in program.needs(part):
            source = before if need.outside and before is not None else part
            if part in whole:
                mark(source, need.source, whole[part][need.row])
            if source in whole:
                mark(part, need.row, whole[source][need.source])
    return {part: _closed(program, part, mask) for part, mask in out.items()}


def _closed(program: Program, part: Part, mask: Mask) -> Mask:
    """A collective of which one rank is selected, with all the ranks of its group; what the front end sends another rank is not
    of interest."""
    out = mask.copy()
    for row, step in enumerate(program.steps(part)):
        if step.op is not None and step.axes and out[row].any() and not out[row].all():
            groups = program.groups(step.axes, part.stage)
            out[row] = np.isin(groups, np.unique(groups[out[row]]))
    return out
