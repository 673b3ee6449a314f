"""step_bound: a time and a memory that no training step of a row can beat.

Cells of a layer depend on the degrees of its layout, the sequences of a micro-batch and what is done anew, and not on the number of stages, on
the schedule or on how many micro-batches there are: what one lowered plan shows holds for all rows of the same key (tests compare). Of a key that nobody has
lowered, what one rank computes of attention and of experts is known from other keys. Cells are put in the order of the schedule by what every order must
wait for; sends between stages count as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...base.axes import DATA, STAGES
from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import record
from ...base.low_precision import RECIPES
from ...base.pipeline_schedules import SCHEDULES
from ...ir.ops.training import STATES
from ...lang.choices import NONE
from ...spec.factors import even_stages
from .bound import News, Table
from .bound_keys import keys, numbered
from .objectives import Floats
from .rules import Facts, batching
from .space import Flags, Ints, Pause, Rows, never
from .step_pieces import CELLS, GATHERED, GRADIENTS, HELD, KEPT, OPTIMIZER, STAGED, WEIGHTS, WORKING, StepLearnt
from .step_rules import chunk_counts
from .step_shares import Shares, held, least_step_s, order, shares, update_s

FOREVER_S = 1e30
CELL, STATE = 0, 1
"""Tables in news: cells of a layout, and its states and update."""


@record(slots=False)
class Group:
    """Rows of one schedule, number of stages and chunks."""

    schedule: str
    stages: int
    chunks: int
    overlapped: bool
    pairs: bool  # of cells that overlap


@dataclass
class StepBounds:
    """Of the rows of one space: `time_s` is the least that a step of each may take, `peak_B` what its fullest GPU holds at least. `flops`: of a step (0: not
    known yet)."""

    rows: Rows
    facts: Facts
    pause: Pause = never
    time_s: Floats = field(init=False)
    peak_B: Floats = field(init=False)
    flops: float = 0.0
    names: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    groups: list[Group] = field(default_factory=list)
    made: dict[int, Shares] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows, facts, count = self.rows, self.facts, len(self.rows)
        self.time_s, self.peak_B = np.zeros(count), np.zeros(count)
        each, lanes, micro = (np.broadcast_to(a, (count,)) for a in batching(rows, facts))
        self.micro = micro * lanes
        known = keys(rows, facts, each)
        anew = self._place("recompute")
        zero = np.broadcast_to(rows.number("zero"), (count,))
        ranks = np.broadcast_to(rows.number(DATA) * rows.number("replicas"), (count,))
        split = [np.where(zero >= 2, zero, 0), np.where(zero >= 2, ranks, 0)]
        layout = [*known[0][0], *known[1][0], *known[3][0], *self._ends()]
        training = facts.phase.training
        if training is not None and training.aux_loss and training.aux_loss_over == "micro_batch":
            layout.append(ranks)  # whose shares of experts are added up
        self.key = numbered([*layout, each, anew, *split], self.pause)
        self.state = numbered([*layout, zero, ranks], self.pause)
        self.first = np.zeros(0, dtype=np.int64)
        if count:
            _, self.first = np.unique(self.key, return_index=True)  # a row of each key
        whole, kept = zero < 2, np.broadcast_to(rows.is_("recompute", NONE), (count,))
        # Keys of the same layout that take no more: where sums of gradients are whole, and where nothing is done anew.
        self.below = [
            self._same([*layout, each, anew], whole), self._same([*layout, each], kept & whole), self._same([*layout, each, *split], kept)
        ]  # fmt: skip
        self.alike = numbered([*layout, anew, np.where(zero >= 3, ranks + 1, 0)], self.pause)[self.first]
        self.each = each[self.first]
        self.sides = [
            Table(numbered([*known[k][0], *more], self.pause)[self.first], np.broadcast_to(np.asarray(known[k][1], dtype=np.float64), (count,))[self.first], True)
            for more in ([], [anew])
            for k in (0, 2)
        ]  # fmt: skip
        self.shared = np.broadcast_to(self._shared(), (count,))
        self.hides = np.broadcast_to(rows.is_("grad_overlap", "full"), (count,))
        self.zero = zero
        self.room_B, self.reserve_B = np.full(count, np.inf), np.zeros(count)
        for name, own in facts.pools.items():
            at = np.broadcast_to(rows.is_("hardware", name) if len(facts.pools) > 1 else True, (count,))
            self.room_B[at], self.reserve_B[at] = own.memory_B, own.reserve_B
        self.exact = np.zeros(len(self.first), dtype=bool)
        states = int(self.state.max()) + 1 if count else 0
        self.stated = np.zeros(states, dtype=bool)
        self.changed = np.zeros(count, dtype=bool)
        self._group()

    def _place(self, name: str) -> Ints:
        at = next((k for k, d in enumerate(self.rows.domains) if d.path == name), None)
        return np.zeros(len(self.rows), dtype=np.int64) if at is None else self.rows.places[at]

    def _ends(self) -> list[Ints]:
        """Of a model with one table at both ends, which layers that predict further tokens read, too: where the ends of the pipeline are apart,
        and at how many stages."""
        training = self.facts.phase.training
        if not (self.facts.spec.model.attributes.get("tied") or (training is not None and training.mtp_loss)):
            return []
        stages, met = self.rows.number(STAGES), np.zeros((), dtype=bool)
        for name, known in SCHEDULES.items():
            met = met | (self.rows.is_("schedule", name) & known.ends_meet)
        return [np.broadcast_to(np.where(met | (stages == 1), 0, stages), (len(self.rows),))]

    def _same(self, columns: list[Ints | Floats], those: Flags) -> Ints:
        """By key, another one that is equal in these columns and is one of `those`; -1: none."""
        same = numbered(columns, self.pause)
        keys_of = {int(same[row]): k for k, row in enumerate(self.first) if those[row]}
        return np.asarray([keys_of.get(int(same[row]), -1) for row in self.first], dtype=np.int64)

    def _shared(self) -> Ints:
        """The most ranks that can have shares of one state."""
        rows = self.rows
        found: Ints = np.maximum(rows.number("gpus") // rows.number(STAGES), 1)
        return found

    def _group(self) -> None:
        rows, count = self.rows, len(self.rows)
        if not count:
            return
        chunks = np.broadcast_to(chunk_counts(rows), (count,))
        stages = np.broadcast_to(rows.number(STAGES), (count,))
        at = next((k for k, d in enumerate(rows.domains) if d.path == "schedule"), None)
        words = [str(rows.fixed["schedule"])] if at is None else [str(v) for v in rows.domains[at].values]
        place = self._place("schedule")
        over = np.broadcast_to(rows.is_("exchange_overlap", "full"), (count,))
        found, self.group = np.unique(np.stack([place, stages, chunks, over]), axis=1, return_inverse=True)
        self.group = self.group.reshape(-1)
        for k in range(found.shape[1]):
            word, pp, v, overlapped = found[:, k].tolist()
            pairs = bool(overlapped) or SCHEDULES[words[word]].pairs
            self.groups.append(Group(words[word], pp, v, bool(overlapped), pairs))

    # -- what is learnt ----------------------------------------------------------------------------------------------

    def learn(self, row: int, found: StepLearnt) -> None:
        """From the layout of a row."""
        key, state, kinds = int(self.key[row]), int(self.state[row]), len(found.names)
        if not self.names:
            self.names, self.layers, self.flops = found.names, found.layers, found.flops
            self.slot = np.zeros(len(self.first), dtype=np.int64)  # of a key that was lowered; 0: was not
            self.cells, self.moves, self.summed = (
                np.zeros((1, *one.shape)) for one in (found.cells, found.moves, found.summed)
            )
            self.held = np.zeros((len(HELD), kinds, len(self.first)))
            self.update, self.states = np.zeros((2, kinds, len(self.stated))), np.zeros((2, kinds, len(self.stated)))
            for table in self.sides:
                table.widen(2 * len(CELLS) * kinds)
        if found.names != self.names:  # nothing is known of another model
            return
        more = np.zeros(len(self.first), dtype=bool)
        if not self.exact[key]:
            self.exact[key] = more[key] = True
            self.slot[key] = count = int(self.exact.sum())
            if count == len(self.cells):
                self.cells, self.moves, self.summed = (
                    np.concatenate([one, np.zeros(one.shape)]) for one in (self.cells, self.moves, self.summed)
                )
            self.cells[count], self.moves[count], self.summed[count] = found.cells, found.moves, found.summed
            self.held[..., key] = found.held
            for k, table in enumerate(self.sides):
                anew, side = divmod(k, 2)
                new = table.put(key, found.computed[anew, :, 2 * side : 2 * side + 2].reshape(2, -1))
                more = more if new is None else more | new
            more |= self._holds(key)
            for base in self.below:
                more |= base == key
        if not self.stated[state]:
            self.stated[state] = True
            self.update[:, :, state], self.states[:, :, state] = found.update, found.states
            self.changed |= self.state == state
        self.changed |= more[self.key]

    def _holds(self, key: int) -> Flags:
        """Keys of which more is known now: the same layout has the same weights, and keeps no less of more sequences, nor less than its share of fewer."""
        found, own = self.held[:, :, key], self.alike[key]
        at = np.flatnonzero((self.alike == own) & ~self.exact)
        for k in at.tolist():
            scale = min(self.each[k] / self.each[key], 1.0)
            self.held[WEIGHTS, :, k] = found[WEIGHTS]
            self.held[KEPT, :, k] = np.maximum(self.held[KEPT, :, k], scale * found[KEPT])
        out = np.zeros(len(self.first), dtype=bool)
        out[at] = True
        return out

    def settle(self) -> None:
        """Works out what has changed since the last time."""
        at = np.flatnonzero(self.changed)
        if not len(at) or not self.names:
            return
        self.changed[:] = False
        touched = np.unique(self.key[at])
        least = np.stack([self._cells(touched, overlap) for overlap in (0, 1)])  # [2, 3, 4, kinds of layer, keys]
        place, hides = np.searchsorted(touched, self.key[at]), self.hides[at].astype(np.int64)
        for number in np.unique(self.group[at]).tolist():
            own = np.flatnonzero(self.group[at] == number)
            self._settle(number, at[own], np.moveaxis(least[hides[own], ..., place[own]], 0, -1))

    def _cells(self, at: Ints, overlap: int) -> Floats:
        """Seconds at least of the cells of some keys but for what moves weights, those of a key that was lowered exactly: all, what is computed,
        and all but tokens on their way."""
        shape = (2, len(CELLS), len(self.names), len(at))
        found = [table.at(at).reshape(shape) for table in self.sides]
        (most, least), (most_routed, least_routed) = np.maximum(found[0], found[2]), np.maximum(found[1], found[3])
        computed = np.maximum(most + least_routed, least + most_routed)
        out: Floats = np.stack([computed, computed, np.zeros(computed.shape)])
        for below in self.below:
            base = below[at]
            known = (base >= 0) & self.exact[base]
            slot = self.slot[base[known]]
            cells = np.moveaxis(self.cells[slot, overlap, :2] - self.summed[slot, None], 0, -1)
            out[:2, ..., known] = np.maximum(out[:2, ..., known], cells)
        exact = self.exact[at]
        out[..., exact] = np.moveaxis(self.cells[self.slot[at[exact]], overlap], 0, -1)
        return out

    def _settle(self, number: int, at: Ints, cells: Floats) -> None:
        group, micro = self.groups[number], self.micro[at]
        own = self.made.get(number)
        if own is None:
            schedule = order(group.schedule, group.stages, int(micro[0]), group.chunks, group.overlapped)
            cut = self.facts.phase.strategy.layers_per_stage
            if cut is not None and len(cut) != schedule.stages:
                cut = even_stages(sum(cut), schedule.stages)
            own = self.made[number] = shares(schedule, self.layers, len(self.names), cut)
        exact, state, hides = self.exact[self.key[at]], self.state[at], self.hides[at]
        moves = np.moveaxis(self.moves[self.slot[self.key[at]], hides.astype(np.int64)], 0, -1)
        beside = np.where(hides, moves, 0.0)  # what runs at the same time takes no longer in all
        whole = np.where(hides, cells[0], cells[0] + moves)
        under = np.where(exact, cells[0] + moves, FOREVER_S)  # what hides more than is known hides all
        ways = (
            (cells[1], cells[2]) if group.pairs else (whole, beside)
        )  # tokens of one of a pair travel while the other computes
        steps = np.maximum(*(least_step_s(way, own, micro) for way in ways))
        self.time_s[at] = steps + update_s(self.update[:, :, state], under, own, hides)
        self.peak_B[at] = self._peak_B(group, own, at)

    def _peak_B(self, group: Group, own: Shares, at: Ints) -> Floats:
        """Bytes on the fullest GPU at least."""
        kept, state = self.held[:, :, self.key[at]], self.state[at]
        states = np.where(self.stated[state], self.states[:, :, state], self._least_states(kept[WEIGHTS], at))
        stored = own.layers @ (kept[WEIGHTS] + states.sum(axis=0))
        micro, place = np.unique(self.micro[at], return_inverse=True)
        each = [held(group.schedule, group.stages, m, group.chunks, group.overlapped) for m in micro.tolist()]
        flying = np.asarray(each)[place].T
        has = own.layers[:, :, None] > 0
        working, staged, gathered = ((has * kept[k]).max(axis=1) for k in (WORKING, STAGED, GATHERED))
        most: Floats = (stored + flying * (own.chunk @ kept[KEPT]) + working + staged + gathered).max(axis=0)
        return most + self.reserve_B[at]

    def _least_states(self, weights: Floats, at: Ints) -> Floats:
        """Bytes of gradients and of the optimizer at least [2, kinds, rows], where ranks share them as far as they can."""
        training = self.facts.phase.training
        assert training is not None
        master = 0 if training.master_dtype == "none" else DTYPE_BYTES[training.master_dtype]
        each = master + STATES[training.optimizer] * DTYPE_BYTES[training.moment_dtype]
        model = self.facts.spec.model
        counts = weights / max(
            DTYPE_BYTES[model.weight_dtype], *(_most_B(self.rows, name, model.dtype) for name in RECIPES), 1e-9
        )
        shared = self.shared[at]
        out = np.zeros((2, *weights.shape))
        out[GRADIENTS] = counts * DTYPE_BYTES[training.gradient_dtype] / np.where(self.zero[at] >= 2, shared, 1)
        out[OPTIMIZER] = counts * each / np.where(self.zero[at] >= 1, shared, 1)
        return out * (1.0 - 1e-9)

    # -- what is asked ------------------------------------------------------------------------------------------------

    @property
    def over_B(self) -> Floats:
        """What does not fit, at least."""
        self.settle()
        found: Floats = self.peak_B * (1.0 - 1e-9) - self.room_B
        return found

    @property
    def too_full(self) -> Flags:
        return self.over_B > 0

    @property
    def priced(self) -> Flags:
        """Rows whose layout was lowered."""
        found: Flags = self.exact[self.key]
        return found

    def news(self, row: int) -> News:
        """What a row would tell of others and nobody knows."""
        own = [(CELL, int(self.key[row]))] if not self.exact[self.key[row]] else []
        return frozenset([*own, *([(STATE, int(self.state[row]))] if not self.stated[self.state[row]] else [])])

    def unseen(self, row: int) -> News:
        """The cells that a glance at a row would tell."""
        return frozenset() if self.exact[self.key[row]] else frozenset([(CELL, int(self.key[row]))])

    def known(self, row: int) -> bool:
        return not self.news(row)


def _most_B(rows: Rows, name: str, whole: str) -> float:
    """Bytes that a weight takes at most in steps whose products compute in this dtype: both copies beside those in 16 bits; 0: there are none."""
    return 2 * DTYPE_BYTES[name] + DTYPE_BYTES[whole] if rows.is_("matmul_dtype", name).any() else 0.0
