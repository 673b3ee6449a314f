"""Which experts a phase uses: words of its section `experts` beside the degrees."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.phase_kinds import TRAIN
from ...base.schema.phase_sections import EXPERT_USE, PREFETCHES
from ...base.units import Quantity
from ...spec.expert_use import ExpertUse
from ...spec.model import Model
from ...spec.strategy import Strategy
from ..body import Body
from ..values.evaluate import Value
from ..values.names import Names
from .forms import read_form
from .loads_over_time import read_series

NEEDS = {"skip_below": "skip", **dict.fromkeys(("cache", "prefetch", "warm", "hits", "trace"), "resident")}
"""Words that say nothing without another one."""
EXAMPLES = {"skip": "skip = 20%", "resident": "resident = 64"}


def said(inner: Body) -> list[str]:
    """The words of use that a section `experts` has, in the order of the table."""
    return [name for name in EXPERT_USE if name in {*inner.assigns, *inner.bare}]


def uses_alone(inner: Body) -> bool:
    """Whether it has such words and no degree, and so says nothing of how ranks share the experts."""
    found = {*inner.assigns, *inner.bare}
    return bool(found) and found <= {*EXPERT_USE}


def read_expert_use(
    values: Mapping[str, Value | None], body: Body, kind: str, model: Model, strategy: Strategy, names: Names
) -> ExpertUse:
    """`values`: what the section says, read by its schema. What does not go with the phase is reported."""
    inner = body.sub("experts", names.out)
    words = said(inner) if inner is not None else []
    if inner is None or not words:
        return ExpertUse()
    out, first = names.out, inner.span_of(words[0])
    if kind == TRAIN.name:
        why = "a training step takes every choice, or its losses would be of another model; and it needs all experts"
        out.add("E12", f"`{words[0]}` does not belong to a training phase", first, help=(why,))
    elif not model.count("experts.count", 0):
        out.add("E03", f"`{words[0]}` needs routed experts", first)
    for word, needed in NEEDS.items():
        if word in words and needed not in words:
            help_ = (f"write `{EXAMPLES[needed]}`, or leave out `{word}`",)
            out.add("E10", f"`{word}` needs `{needed}`", inner.span_of(word), help=help_)
    numbers = {name: v.value for name, v in values.items() if name in EXPERT_USE and isinstance(v, Quantity)}
    resident = int(numbers.pop("resident", 0))
    if resident:
        _check(inner, strategy, resident, model.count("experts.count", 0) + strategy.redundant, names)
    form = (
        read_form("prefetch", inner.assigns["prefetch"].value, PREFETCHES, names)
        if "prefetch" in inner.assigns
        else None
    )
    hit = form.values.get("hit") if form is not None else None
    foretold = hit.value if isinstance(hit, Quantity) else None
    trace = None
    if "trace" in inner.assigns:
        trace = read_series(inner.assigns["trace"].value, names)
        if "hits" in words:
            help_ = ("leave one of them out",)
            out.add("E12", "`hits` is what the rule finds in the `trace`", inner.span_of("hits"), help=help_)
    by_choice = _by_choice(values["skip"], model.count("experts.top_k", 0), inner, names)
    if by_choice:
        numbers["skip"] = by_choice[0] if len(set(by_choice)) == 1 else sum(by_choice) / len(by_choice)
    return ExpertUse(
        by_choice=by_choice if len(set(by_choice)) > 1 else (),
        trace=trace,
        resident=resident,
        cache=str(values["cache"]),
        foretold=foretold,
        warm=values["warm"] is not False,
        **numbers,
    )


def _check(inner: Body, strategy: Strategy, resident: int, slots: int, names: Names) -> None:
    """Refuses what experts in host memory do not go with."""
    out, span = names.out, inner.span_of("resident")
    if slots and resident > slots:
        out.add("E03", f"a layer has {slots} experts, fewer than the {resident} that its GPUs are to hold", span)
    beside = {
        "experts on GPUs of their own": strategy.apart is not None,
        "`rebalance`": strategy.rebalance is not None,
        "`overlap = two_batch`": strategy.overlap == "two_batch",
    }
    why = {
        "experts on GPUs of their own": "their GPUs are there to hold them all",
        "`rebalance`": "it moves experts between the memories of GPUs",
        "`overlap = two_batch`": "what comes for one half of the batch is there for the other: that is not counted",
    }
    for what, holds in beside.items():
        if holds:
            out.add("E12", f"`resident` and {what} cannot be combined", span, help=(why[what],))


def _by_choice(value: Value | None, top_k: int, inner: Body, names: Names) -> tuple[float, ...]:
    """Shares of a token's first choice, its second, ...; none where one is of all."""
    if not isinstance(value, tuple):
        return ()
    shares = tuple(one.value for one in value if isinstance(one, Quantity))
    if len(shares) < len(value) or (top_k and len(shares) != top_k):
        message = f"`skip` has {len(value)} shares, one for each of the {top_k} choices of a token is needed"
        names.out.add("E03", message, inner.span_of("skip"))
        return ()
    return shares
