"""Whether the degrees of a phase multiply to its GPUs: all of them flat, folded into attention and experts, or of experts on GPUs of their own."""

from __future__ import annotations

from math import prod

from ..base.axes import AXES, EXPERT, STAGES
from ..base.diagnostics import Collector, Label
from ..base.frozen import record
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.strategy import Fold, Strategy
from .body import Body

MOST_TURNS = 26
"""Micro-batches that are scheduled side by side; with 3 or 4 neither side waits where they take equally long."""


@record
class GpuProducts:
    """Of one phase."""

    phase: Phase
    body: Body
    model: Model
    out: Collector

    @property
    def s(self) -> Strategy:
        return self.phase.strategy

    def fit(self) -> bool:
        """Tells what is wrong with them."""
        if self.s.apart is not None:
            return self._products_apart()
        return self._folded_products() if self.s.attention is not None else self._flat_product()

    def _flat_product(self) -> bool:
        s, gpus = self.s, len(self.phase.gpus)
        parts = [("replicas", s.replicas), *((axis, getattr(s, axis)) for axis in AXES)]
        total = prod(n for _, n in parts)
        if total == gpus:
            return True
        shown = " x ".join(f"{a} {n}" for a, n in parts if n > 1) or "one rank"
        rest = total // s.dp
        help_ = [f"gpus = {total} of them"] if total < gpus else []
        if gpus % rest == 0:
            help_.insert(0, f"dp = {gpus // rest} uses them all")
        else:
            others = [f"{a} = {gpus // (total // n)}" for a, n in parts if n > 1 and gpus % (total // n) == 0]
            help_ = [f"{' or '.join(others[:3])} makes it fit"] if others else help_
        help_ = [*self._count_for_ids(total), *help_]
        self.out.add(
            "E03", f"the degrees of `{self.phase.name}` multiply to {total}, but it has {gpus} GPUs", self.body.first_of("gpus"), f"{gpus} GPUs here",
            because=(f"{shown} = {total}",), help=help_,
        )  # fmt: skip
        return False

    def _count_for_ids(self, total: int) -> list[str]:
        """`gpus = 8` is one GPU, where as many were probably meant."""
        if self.phase.gpus != (total,) or self.body.first_of("gpus").text != str(total):
            return []
        return [f"`gpus = {total}` is GPU {total} alone: {total} GPUs are `gpus = 0..{total - 1}`"]

    def _folded_products(self) -> bool:
        s, gpus = self.s, len(self.phase.gpus)
        assert s.attention is not None and s.experts is not None
        if gpus % (s.pp * s.replicas):
            self.out.add(
                "E03",
                f"{gpus} GPUs cannot be divided by pp {s.pp} x replicas {s.replicas}",
                self.body.first_of(STAGES, "gpus"),
                help=(f"{nearest(gpus, s.pp * s.replicas)} GPUs can",),
            )
            return False
        stage = gpus // (s.pp * s.replicas)
        dense, sparse = prod(n for _, n in s.attention.degrees), prod(n for _, n in s.experts.degrees)
        if dense == stage and stage % sparse == 0:
            return True
        edp = f" x edp {stage // sparse} = {stage}" if stage % sparse == 0 else f", which does not divide {stage}"
        # The side that is wrong is marked; the other one, and the GPUs, say why.
        wrong, other = ("attention", "experts") if dense != stage else ("experts", "attention")
        product = {"attention": f"{_times(s.attention)} = {dense}", "experts": f"{_times(s.experts)} = {sparse}"}
        labels = [(other, f"{product[other]}"), ("gpus", f"{gpus} GPUs here")]
        also = [
            Label(self.body.first_of(name), text)
            for name, text in labels
            if name in (*self.body.assigns, *self.body.sections)
            and self.body.first_of(name) != self.body.first_of(wrong, other)
        ]
        self.out.add(
            "E03", f"attention and experts of `{self.phase.name}` must both factor the {stage} GPUs of a stage",
            self.body.first_of(wrong, other), product[wrong] if wrong in self.body.sections else "", also=also,
            because=(
                f"attention: {product['attention']}" + ("" if dense == stage else f", not {stage}"),
                f"experts: {product['experts']}{edp}",
            ),
            help=(
                *self._count_for_ids(dense * s.pp * s.replicas),
                *self._degrees_that_fit(s.attention if dense != stage else s.experts, stage, exact=dense != stage),
                f"{gpus} GPUs / (pp {s.pp} x replicas {s.replicas}) = {stage} GPUs per stage",
            ),
        )  # fmt: skip
        return False

    def _products_apart(self) -> bool:
        """Where experts have GPUs of their own: what does not go with that, and the product of each side."""
        s = self.s
        assert s.attention is not None and s.experts is not None and s.apart is not None
        if not self.model.count("experts.count", 0):
            self.out.add(
                "E03",
                f"the experts of `{self.phase.name}` have GPUs, but `{self.model.name}` has no routed experts",
                self.body.first_of("experts"),
            )
            return False
        wrong = False
        for name, why, instead in not_with_own_gpus(self.phase):
            self.out.add(
                "E03", f"experts on GPUs of their own and `{name}` cannot be combined", self.body.first_of(name, "place gpu", "experts"),
                because=(why,), help=(instead,),
            )  # fmt: skip
            wrong = True
        if s.microbatches > MOST_TURNS:
            self.out.add(
                "E09",
                f"at most {MOST_TURNS} micro-batches take turns at attention and at experts",
                self.body.first_of("microbatches"),
            )
            wrong = True
        if wrong:
            return False
        for side, fold, gpus in (("attention", s.attention, self.phase.gpus), ("experts", s.experts, s.apart.gpus)):
            product = prod(n for _, n in fold.degrees)
            if product != len(gpus):
                self.out.add(
                    "E03", f"the degrees of `{side}` of `{self.phase.name}` multiply to {product}, but it has {len(gpus)} GPUs", self.body.first_of(side, "gpus"),
                    because=(f"{_times(fold)} = {product}",), help=self._degrees_that_fit(fold, len(gpus), exact=True, side=side),
                )  # fmt: skip
                wrong = True
        return not wrong

    def _degrees_that_fit(self, fold: Fold, stage: int, *, exact: bool, side: str = "") -> list[str]:
        """One degree of a side changed, the others kept: attention fills the stage, experts divide it."""
        total, side = prod(n for _, n in fold.degrees), side or ("attention" if exact else "experts")
        found = []
        for axis, n in fold.degrees:
            rest = total // n
            if stage % rest:
                continue
            most = stage // rest
            fits = [most] if exact else [d for d in range(most, 0, -1) if most % d == 0 and d <= max(n, 1)][:2]
            experts = self.model.count("experts.count", 0)
            if axis == EXPERT and experts:
                fits = [d for d in fits if experts % d == 0] or fits
            if fits and fits != [n]:
                found.append(f"{axis} = {' or '.join(map(str, fits))}")
        return [f"{' or '.join(found[:2])} in `{side}` makes it fit"] if found else []


def not_with_own_gpus(phase: Phase) -> list[tuple[str, str, str]]:
    """What a phase says that does not go with experts on GPUs of their own: the attribute, why, and what to do instead."""
    s, alone = phase.strategy, "give its experts no GPUs of their own"
    return [
        (name, why, instead)
        for name, said, why, instead in (
            (STAGES, s.pp > 1, "all layers take turns on the same two sets of GPUs", "write `pp = 1`"),
            ("replicas", s.replicas > 1, "the experts would serve several copies of attention", "more ranks of `dp` in `attention` share the same experts"),
            ("dispatch", s.dispatch != "all_to_all", "tokens are sent to the ranks of their experts", "leave out `dispatch`"),
            ("exchange", phase.exchange is not None, "these kernels exchange tokens within one group of ranks", "leave out `exchange`"),
            ("overlap", s.overlap != "none", "micro-batches take turns already: one at the experts, others at attention", f"write `microbatches = {2 * s.microbatches}`"),
            ("place", s.best or s.place is not None, "it orders the ranks of one set of GPUs", "the ids in `gpus` say which GPU each rank is"),
            ("drafter", phase.drafter != "none", "the layers that draft have experts too", alone),
        )
        if said
    ]  # fmt: skip


def _times(fold: Fold) -> str:
    return " x ".join(f"{a} {n}" for a, n in fold.degrees)


def nearest(number: int, step: int) -> str:
    """The multiples of a step on both sides of a number: `248 or 252`."""
    low = number // step * step
    return f"{low} or {low + step}" if low else str(step)
