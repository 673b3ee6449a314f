"""`--select` and `--hops`: which steps are in the picture, on which GPUs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...ir.result import PhaseResult
from ...lang.diagnostics import Diagnostic, SpecError, did_you_mean
from ..critical import critical
from .program import Mask, Part, Program, Step


@dataclass(frozen=True, slots=True)
class Choice:
    """What a picture shows: `select` texts that all hold, `hops` data edges around them, `unfold` names of FOLDS or all."""

    select: tuple[str, ...] = ()
    hops: int = 0
    unfold: tuple[str, ...] = ()


Masks = dict[Part, Mask]
NUMBERS = re.compile(r"(-?\d{1,12})(?:\.\.(-?\d{1,12}))?")
KEYS = ("critical", "gpu", "layer", "stage", "microbatch", "op")
HELP = "critical, gpu:0..7, layer:3, layer:NAME, stage:0, microbatch:0, op:NAME (an op, a block or a kind)"


def select(program: Program, choice: Choice) -> Masks:
    """The steps that are in the picture, on which ranks.

    Raises SpecError when a text is not understood or nothing is selected."""
    everything = {part: _shared(program, len(program.steps(part))) for part in program.parts}
    found = everything
    for text in choice.select:
        chosen = _one(program, text, everything)
        found = {part: found[part] & mask for part, mask in chosen.items() if part in found}
        found = {part: mask for part, mask in found.items() if mask.any()}
    if not found:
        raise _refused(f"`{' '.join(f'--select {t}' for t in choice.select)}` selects nothing in {program.result.name}")
    for _ in range(choice.hops):
        grown = _grown(program, found)
        if all(part in found and (mask == found[part]).all() for part, mask in grown.items()):
            break
        found = grown
    return {part: found[part] for part in program.parts if part in found}


def _refused(message: str, help: str = "") -> SpecError:
    return SpecError([Diagnostic("E05", message, help=(help,) if help else ())])


def _shared(program: Program, steps: int) -> Mask:
    return np.broadcast_to(np.True_, (steps, program.ranks))


def _one(program: Program, text: str, everything: Masks) -> Masks:
    key, colon, values = text.partition(":")
    if key == "critical" and not colon:
        return _critical(program)
    chooser = CHOOSERS.get(key)
    if chooser is None or not values.strip():
        near = did_you_mean(key, KEYS) if chooser is None and key != "critical" else None
        raise _refused(f"`--select {text}` is not understood", f"did you mean `{near}`?" if near else f"known: {HELP}")
    return chooser(program, _Values(program.result, key, values), everything)


class _Values:
    """`0..3,7,sparse`: numbers, ranges and names. Each is one that the phase has."""

    def __init__(self, result: PhaseResult, key: str, text: str) -> None:
        self.result, self.key, self.text = result, key, text
        self.spans: list[tuple[int, int]] = []
        self.names: list[str] = []
        for word in (w.strip() for w in text.split(",")):
            match = NUMBERS.fullmatch(word)
            if match is None:
                self.names.append(word)
            else:
                self.spans.append((int(match[1]), int(match[2] or match[1])))

    def numbers(self, known: Iterable[int]) -> set[int]:
        """The known numbers that are asked for."""
        found = {n for n in known if any(low <= n <= high for low, high in self.spans)}
        for low, high in self.spans:
            if not any(low <= n <= high for n in found):
                which = f"{low}" if low == high else f"{low}..{high}"
                raise _refused(f"`--select {self.key}:{self.text}`: {self.result.name} has no {self.key} {which}")
        return found

    def only_numbers(self, known: Iterable[int]) -> set[int]:
        if self.names:
            raise _refused(f"`--select {self.key}:{self.text}`: `{self.names[0]}` is no number", f"known: {HELP}")
        return self.numbers(known)

    def named(self, known: Iterable[str]) -> set[str]:
        """The names, each of them known."""
        known = sorted(set(known))
        for name in self.names:
            if name not in known:
                near = did_you_mean(name, known)
                hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
                raise _refused(f"`--select {self.key}:{self.text}`: {self.result.name} has no `{name}`", hint)
        return set(self.names)


def _gpu(program: Program, values: _Values, everything: Masks) -> Masks:
    stages = program.result.graph.stages
    wanted = values.only_numbers(program.result.gpus)
    columns = {s.index: np.isin(np.asarray(s.gpus), sorted(wanted)) for s in stages}
    return {part: mask & columns[part.stage] for part, mask in everything.items() if columns[part.stage].any()}


def _layer(program: Program, values: _Values, everything: Masks) -> Masks:
    numbers = values.numbers({p.number for p in everything if p.number is not None})
    names = values.named({p.segment for p in everything if p.number is not None})
    return {p: mask for p, mask in everything.items() if p.number in numbers or p.segment in names}


def _stage(program: Program, values: _Values, everything: Masks) -> Masks:
    wanted = values.only_numbers({p.stage for p in everything})
    return {part: mask for part, mask in everything.items() if part.stage in wanted}


def _microbatch(program: Program, values: _Values, everything: Masks) -> Masks:
    wanted = values.only_numbers({p.microbatch for p in everything})
    return {part: mask for part, mask in everything.items() if part.microbatch in wanted}


def _op(program: Program, values: _Values, everything: Masks) -> Masks:
    def words(step: Step) -> tuple[str, str, str]:
        return step.name, step.block, step.kind

    values.names += [f"{low}" for low, _ in values.spans]
    wanted = values.named({w for part in everything for s in program.steps(part) for w in words(s) if w})
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
    parts = {(p.stage, p.microbatch, p.number): p for p in program.parts}
    found: Masks = {}
    for visit in critical(program.result):
        part = parts[visit.stage, visit.microbatch, visit.layer]
        mask = found.setdefault(part, np.zeros((len(program.steps(part)), program.ranks), bool))
        mask[program.row(part, visit.op, visit.lane), program.rank(visit.index)] = True
    return found


def _grown(program: Program, found: Masks) -> Masks:
    """One data edge further in both directions. A collective is one node for its whole group."""
    whole = {part: _closed(program, part, mask) for part, mask in found.items()}
    out = {part: mask.copy() for part, mask in whole.items()}

    def mark(part: Part, row: int, ranks: Mask) -> None:
        if ranks.any():
            if part not in out:
                out[part] = np.zeros((len(program.steps(part)), program.ranks), bool)
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
    """A collective of which one rank is selected, with all the ranks of its group."""
    out = mask.copy()
    for row, step in enumerate(program.steps(part)):
        if step.op is not None and step.op.is_collective and out[row].any() and not out[row].all():
            groups = program.groups(step.op)
            out[row] = np.isin(groups, np.unique(groups[out[row]]))
    return out
