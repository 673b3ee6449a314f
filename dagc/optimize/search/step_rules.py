"""step_rules: which plans of a training phase are legal beyond those of inference: what each schedule needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...base.axes import DATA, EXPERT, STAGES
from ...base.low_precision import RECIPES
from ...base.pipeline_schedules import SCHEDULES, Need, Unmet
from ...lang.choices import list_word
from ...spec.training import Training
from .space import Flags, Ints, Rows, Rule, Test, Word

SCHEDULE, VIRTUAL = "schedule", "virtual"
ORDERED = (SCHEDULE, VIRTUAL, "grad_overlap", "exchange_overlap")
"""Those that do not change what a layout costs."""


def step_words(training: Training) -> dict[str, Word]:
    """What rules may ask of a training phase, as it says it."""
    return {
        SCHEDULE: training.schedule, VIRTUAL: training.virtual, "recompute": list_word(training.recompute), "zero": training.zero,
        "grad_overlap": training.overlap, "exchange_overlap": training.exchange_overlap, "matmul_dtype": training.matmul_dtype,
        "quantised_weights": training.quantised_weights,
    }  # fmt: skip


def chunk_counts(rows: Rows) -> Ints:
    """Chunks of layers on each GPU: as said, or as many as the schedule needs."""
    out = np.asarray(rows.number(VIRTUAL))
    for name, known in SCHEDULES.items():
        out = np.where((out == 0) & rows.is_(SCHEDULE, name), known.chunks or 1, out)
    return out


Micro = Callable[[Rows], Ints]
"""Micro-batches of each plan."""


def step_rules(training: Training, layers: int, cut: Sequence[int] | None, micro: Micro) -> tuple[Rule, ...]:
    """In the order in which a plan is refused. `cut`: layers of each stage, where they are given."""
    needs: dict[Need, list[str]] = {}
    for name, known in SCHEDULES.items():
        for need in known.needs:
            needs.setdefault(need, []).append(name)
    asked = (SCHEDULE, VIRTUAL, STAGES, "microbatches", "sequences", "replicas", DATA, EXPERT, "overlap")
    found = [
        Rule("no overlap", "two batches in turn are of inference", (((("overlap",), lambda r: r.is_("overlap", "none"))),), "E12"),
        Rule("chunks", "a schedule has its number of chunks of layers on each GPU", (((SCHEDULE, VIRTUAL), _counted),)),
    ]  # fmt: skip
    for need, names in needs.items():
        titles = " and ".join(SCHEDULES[name].title for name in names)
        about = f"of {titles} {(need.__doc__ or '').rstrip('.')}"
        found.append(Rule(f"schedule: {about}", about, ((asked, _met(need, names, micro)),)))
    able = [name for name, known in SCHEDULES.items() if known.pairing]
    found.append(Rule("pairs of cells", f"cells overlap by `exchange_overlap` under {' and '.join(able)} alone", (
        ((SCHEDULE, "exchange_overlap"), lambda r: r.is_("exchange_overlap", "none") | _of_schedules(r, able)),
    ), "E12"))  # fmt: skip
    words = ("matmul_dtype", "quantised_weights")
    found.append(Rule("quantised weights", "weights are stored in 8 or 4 bits where products compute in them", (
        (words, lambda r: ~r.is_("quantised_weights", True) | quantises(r)),
    ), "E12"))  # fmt: skip
    if not training.reshard_after_forward:
        found.append(Rule("kept weights", "weights that stay for their gradients are those that `zero = 3` gathers", (
            (("zero",), lambda r: r.number("zero") >= 3),
        ), "E12"))  # fmt: skip
    about = "layers divide over pp x the chunks on each GPU"
    if cut is not None:
        about = f"`layers_per_stage` has a number for each chunk, {layers} in all"
    found.append(Rule("virtual stages", about, (((SCHEDULE, VIRTUAL, STAGES), _divided(layers, cut)),)))
    return tuple(found)


def quantises(rows: Rows) -> Flags:
    """Plans whose products compute in 8 or 4 bits."""
    found = np.zeros((), dtype=bool)
    for name in RECIPES:
        found = found | rows.is_("matmul_dtype", name)
    return found


def _of_schedules(rows: Rows, names: Sequence[str]) -> Flags:
    found = np.zeros((), dtype=bool)
    for name in names:
        found = found | rows.is_(SCHEDULE, name)
    return found


def _counted(rows: Rows) -> Flags:
    chunks, kept = chunk_counts(rows), np.ones((), dtype=bool)
    for name, known in SCHEDULES.items():
        if known.chunks is not None:
            kept = kept & (~rows.is_(SCHEDULE, name) | (chunks == known.chunks))
    return kept


def _met(need: Need, names: Sequence[str], micro: Micro) -> Test:
    """Where the need of these schedules is met, each of different numbers asked once."""

    def test(rows: Rows) -> Flags:
        count = len(rows)
        kept = np.ones(count, dtype=bool)
        columns = [np.broadcast_to(one, (count,)) for one in (rows.number(STAGES), micro(rows), chunk_counts(rows))]
        for name in names:
            at = np.flatnonzero(np.broadcast_to(rows.is_(SCHEDULE, name), (count,)))
            if len(at):
                different, place = np.unique(np.stack([c[at] for c in columns]), axis=1, return_inverse=True)
                met = [_holds(lambda n=name, p=p, m=m, v=v: need(n, p, m, v)) for p, m, v in different.T.tolist()]  # type: ignore[misc]
                kept[at] = np.asarray(met)[place.reshape(-1)]
        return kept

    return test


def _holds(need: Callable[[], None]) -> bool:
    try:
        need()
    except Unmet:
        return False
    return True


def _divided(layers: int, cut: Sequence[int] | None) -> Test:
    def test(rows: Rows) -> Flags:
        copies = np.ones((), dtype=np.int64)
        for name, known in SCHEDULES.items():
            copies = np.where(rows.is_(SCHEDULE, name), known.copies, copies)
        pp, chunks = rows.number(STAGES), chunk_counts(rows)
        stages = pp * chunks // copies
        if cut is None:
            kept: Flags = layers % stages == 0
            return kept
        read, made = (len(cut) == pp) | (len(cut) == pp * chunks), (stages == pp) | (len(cut) == stages)
        own: Flags = np.asarray(sum(cut) == layers) & read & made
        return own

    return test
