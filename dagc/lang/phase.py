"""Elaboration of phases: GPU ids, strategy, and whether the strategy fits model, workload and hardware."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..spec import Fold, Hardware, Model, Phase, Strategy, Workload
from . import ast
from .diagnostics import Collector, did_you_mean
from .evaluate import Value, names_in
from .reader import Body, Names, Reader
from .schema import AXES, FOLD_ATTENTION, FOLD_EXPERTS, PHASE, Attribute
from .source import Span
from .units import Quantity

SECTIONS = ("attention", "experts", "shard")


def read_phase(
    section: ast.Section,
    body: Body,
    names: Names,
    hardware: Hardware | None,
    model: Model | None,
    workload: Workload | None,
) -> Phase | None:
    """The phase, or None when its own attributes are wrong; shape errors are reported beside."""
    out = names.out
    name = str(section.name)
    errors = sum(d.code.startswith("E") for d in out.items)
    if section.preset is not None:
        out.add("E02", "a phase has no presets", section.preset.span)
    values = Reader(f"phase {name}", body, PHASE, names, SECTIONS, ("place gpu",)).read()
    kind = values["kind"] or (name if name in ("prefill", "decode") else None)
    if kind is None:
        out.add("E02", f"phase `{name}` needs `kind = prefill` or `kind = decode`", section.kind_span)
    gpus = _gpus(values.get("gpus"), body, hardware, out)
    strategy = _strategy(values, body, names)
    if strategy is None or gpus is None or kind is None or hardware is None or model is None or workload is None:
        return None
    context = values["context"]
    length = (
        int(context.value)
        if isinstance(context, Quantity)
        else workload.prompt + (workload.output if kind == "decode" else 0)
    )
    own = values["sequences"]
    sequences = int(own.value) if isinstance(own, Quantity) else workload.sequences
    phase = Phase(name, str(kind), gpus, length, sequences, strategy, {}, section.kind_span, body.spans())
    if sum(d.code.startswith("E") for d in out.items) == errors:
        _Shape(phase, body, model, workload, out).check()
    return phase


def _gpus(value: Value | None, body: Body, hardware: Hardware | None, out: Collector) -> tuple[int, ...] | None:
    if value is None:
        return None
    span = body.span_of("gpus")
    items = value if isinstance(value, tuple) else (value,)
    if not items or not all(isinstance(v, Quantity) and v.value == int(v.value) and v.value >= 0 for v in items):
        out.add("E04", "`gpus` lists GPU ids: whole numbers from 0", span, help=("gpus = 0..63",))
        return None
    ids = tuple(int(v.value) for v in items if isinstance(v, Quantity))
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) != len(ids) else []
    if twice:
        out.add("E04", f"GPU {_short(twice)} is listed twice", span)
        return None
    if hardware is not None and max(ids) >= hardware.gpus:
        beyond = sorted(i for i in ids if i >= hardware.gpus)
        out.add(
            "E04",
            f"GPU {_short(beyond)} is not in the pool of {hardware.gpus}",
            span,
            help=(f"ids run from 0 to {hardware.gpus - 1}",),
        )
        return None
    return ids


def _short(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _strategy(values: Mapping[str, Value | None], body: Body, names: Names) -> Strategy | None:
    out = names.out
    counts = {
        k: int(v.value)
        for k in (*AXES, "replicas", "microbatches", "redundant")
        if isinstance(v := values[k], Quantity)
    }
    if len(counts) < len(AXES) + 3:
        return None
    attention = _fold(body, "attention", FOLD_ATTENTION, counts, names)
    experts = _fold(body, "experts", FOLD_EXPERTS, counts, names)
    if experts is not None and attention is None:
        attention = Fold(tuple((a, counts[a]) for a in ("dp", "sp", "tp")))
    if attention is not None and experts is None:
        experts = Fold((("ep", counts["ep"]), ("tp", counts["tp"])))
    order = _order(values["order"], body, out)
    stages = _whole_list(values["layers_per_stage"], body, out)
    place = body.directives.get("place gpu")
    if place is not None:
        _place_names(place.value, names)
    if order is None:
        return None
    return Strategy(
        **counts,
        attention=attention,
        experts=experts,
        order=order,
        place=None if place is None else place.value,
        layers_per_stage=stages,
        sequence_parallel=values["sequence_parallel"] is True,
        sp_method=str(values["sp_method"]),
        overlap=str(values["overlap"]),
        shard=_shard(body, names),
    )


def _fold(
    body: Body, section: str, schema: Mapping[str, Attribute], counts: Mapping[str, int], names: Names
) -> Fold | None:
    """`attention { dp = 8, tp }`: a bare name takes the phase's value, else a param's or let's."""
    inner = body.sub(section, names.out)
    if inner is None:
        return None
    degrees: dict[str, int] = {}
    bare = dict(inner.bare)
    inner.bare.clear()
    for axis, statement in bare.items():
        if axis not in schema:
            near = did_you_mean(axis, schema)
            names.out.add(
                "E02",
                f"`{section}` has no axis `{axis}`",
                statement.span,
                help=(f"did you mean `{near}`?",) if near else (),
            )
            continue
        constant = names.constants.get(axis)
        given = axis in body.assigns
        degrees[axis] = counts[axis] if given or not isinstance(constant, Quantity) else int(constant.value)
    read = Reader(section, inner, schema, names).read()
    for axis in schema:
        value = read[axis]
        if axis not in degrees:
            degrees[axis] = int(value.value) if isinstance(value, Quantity) else 1
    return Fold(tuple((axis, degrees[axis]) for axis in schema))


def _order(value: Value | None, body: Body, out: Collector) -> tuple[str, ...] | None:
    if value is None:
        return AXES if "order" not in body.assigns else None
    items = tuple(str(v) for v in value) if isinstance(value, tuple) else (str(value),)
    if sorted(items) != sorted(AXES):
        out.add("E03", f"`order` names each of {', '.join(AXES)} once", body.span_of("order"))
        return None
    return items


def _whole_list(value: Value | None, body: Body, out: Collector) -> tuple[int, ...] | None:
    if value is None:
        return None
    items = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(v, Quantity) and v.value == int(v.value) and v.value >= 1 for v in items):
        out.add("E02", "`layers_per_stage` lists whole numbers", body.span_of("layers_per_stage"))
        return None
    return tuple(int(v.value) for v in items if isinstance(v, Quantity))


def _place_names(expr: ast.Expr, names: Names) -> None:
    """`place` may name axes and constants."""
    known = (*AXES, "replica", "edp", "etp", *names.constants)
    for name in names_in(expr):
        if name.text not in known and name.text not in names.unknown:
            near = did_you_mean(name.text, known)
            names.out.add(
                "E02",
                f"`place` names `{name.text}`, which is no axis",
                name.span,
                help=(f"did you mean `{near}`?",) if near else (),
            )


def _shard(body: Body, names: Names) -> tuple[tuple[str, str], ...]:
    """Extra rules: `shard { my_heads = tp }`."""
    inner = body.sub("shard", names.out)
    if inner is None:
        return ()
    rules = []
    for dim, assign in inner.assigns.items():
        axis = assign.value.text if isinstance(assign.value, ast.Name) else ""
        if axis != "tp":
            names.out.add("E02", f"`{dim}` can be sharded over `tp` only", assign.value.span)
        rules.append((dim, axis))
    return tuple(rules)


class _Shape:
    """The shape checks of one phase: products against GPUs, and everything that must divide."""

    def __init__(self, phase: Phase, body: Body, model: Model, workload: Workload, out: Collector) -> None:
        self.phase, self.body, self.model, self.workload, self.out = phase, body, model, workload, out
        self.s = phase.strategy
        self.folded = self.s.attention is not None

    def check(self) -> None:
        if not (self._folded_products() if self.folded else self._flat_product()):
            return
        self._layers()
        self._experts()
        self._tensor()
        self._batch()
        self._sequence()

    def at(self, *names: str) -> Span:
        """Span of the first of these attributes that was written."""
        for name in names:
            if name in self.body.assigns or name in self.body.sections:
                return self.body.span_of(name)
        return self.body.span

    def _flat_product(self) -> bool:
        s, gpus = self.s, len(self.phase.gpus)
        parts = [
            ("replicas", s.replicas),
            ("pp", s.pp),
            ("dp", s.dp),
            ("ep", s.ep),
            ("sp", s.sp),
            ("tp", s.tp),
        ]
        total = prod(n for _, n in parts)
        if total == gpus:
            return True
        shown = " x ".join(f"{a} {n}" for a, n in parts if n > 1) or "one rank"
        rest = total // s.dp
        help_ = [f"gpus = {total} of them"] if total < gpus else []
        if gpus % rest == 0:
            help_.insert(0, f"dp = {gpus // rest} uses them all")
        self.out.add(
            "E03", f"the degrees of `{self.phase.name}` multiply to {total}, but it has {gpus} GPUs", self.at("gpus"), f"{gpus} GPUs here",
            because=(f"{shown} = {total}",), help=help_,
        )  # fmt: skip
        return False

    def _folded_products(self) -> bool:
        s, gpus = self.s, len(self.phase.gpus)
        assert s.attention is not None and s.experts is not None
        if gpus % (s.pp * s.replicas):
            self.out.add(
                "E03",
                f"{gpus} GPUs do not divide over pp {s.pp} x replicas {s.replicas}",
                self.at("pp", "gpus"),
            )
            return False
        stage = gpus // (s.pp * s.replicas)
        dense, sparse = prod(n for _, n in s.attention.degrees), prod(n for _, n in s.experts.degrees)
        if dense == stage and stage % sparse == 0:
            return True
        edp = f" x edp {stage // sparse} = {stage}" if stage % sparse == 0 else f", which does not divide {stage}"
        self.out.add(
            "E03", f"attention and experts of `{self.phase.name}` must both factor the {stage} GPUs of a stage", self.at("attention", "experts"),
            because=(
                f"attention: {_times(s.attention)} = {dense}" + ("" if dense == stage else f", not {stage}"),
                f"experts: {_times(s.experts)} = {sparse}{edp}",
            ),
            help=(f"{gpus} GPUs / (pp {s.pp} x replicas {s.replicas}) = {stage} GPUs a stage",),
        )  # fmt: skip
        return False

    def degree(self, side: str, axis: str) -> int:
        fold = self.s.attention if side == "attention" else self.s.experts
        return dict(fold.degrees).get(axis, 1) if fold is not None else int(getattr(self.s, axis))

    def need(self, what: str, size: int, by: str, degree: int, *attrs: str) -> None:
        """`size` must divide by `degree`."""
        if size % degree == 0:
            return
        fits = [d for d in range(degree - 1, 0, -1) if size % d == 0]
        help_ = (f"{by.split()[0]} = {fits[0]} divides it",) if fits and fits[0] > 1 else ()
        self.out.add("E03", f"{what} {size} do not divide by {by} {degree}", self.at(*attrs), help=help_)

    def _layers(self) -> None:
        layers, s = self.model.layers, self.s
        if s.layers_per_stage is not None:
            if sum(s.layers_per_stage) != layers or len(s.layers_per_stage) != s.pp:
                total = " + ".join(map(str, s.layers_per_stage))
                self.out.add(
                    "E03", f"`layers_per_stage` must be {s.pp} numbers that add up to {layers}", self.at("layers_per_stage"),
                    because=(f"{total} = {sum(s.layers_per_stage)} over {len(s.layers_per_stage)} stages",),
                )  # fmt: skip
        elif layers % s.pp:
            low = layers // s.pp
            uneven = ", ".join(str(low + (i < layers % s.pp)) for i in range(s.pp)) if s.pp <= 16 else "..."
            self.out.add(
                "E03", f"{layers} layers do not divide over pp {s.pp} stages", self.at("pp"),
                help=(f"layers_per_stage = [{uneven}] makes them uneven",) if low else ("use fewer stages",),
            )  # fmt: skip

    def _experts(self) -> None:
        m, s = self.model, self.s
        number = m.count("experts.count", 0)
        if not number:
            if s.redundant:
                self.out.add("E03", "`redundant` needs routed experts", self.at("redundant"))
            if self.folded and self.degree("experts", "ep") > 1:
                self.out.add("E03", "`ep` needs routed experts", self.at("experts"))
            return
        ep = self.degree("experts", "ep")
        if (number + s.redundant) % ep:
            spare = -(number + s.redundant) % ep + s.redundant
            self.out.add(
                "E03", f"{number} experts + {s.redundant} redundant do not divide over ep {ep}", self.at("ep", "experts"),
                help=(f"redundant = {spare} fills every rank",),
            )  # fmt: skip
        if s.redundant > number * (ep - 1):
            self.out.add(
                "E03",
                f"{s.redundant} redundant copies of {number} experts do not fit on {ep} ranks without doubles",
                self.at("redundant"),
            )
        self.need("expert width", m.count("experts.hidden"), "tp", self.degree("experts", "tp"), "experts", "tp")

    def _tensor(self) -> None:
        tp = self.degree("attention", "tp")
        m = self.model
        heads = m.count("attention.heads", 0)
        if heads:
            self.need("heads", heads, "tp", tp, "tp", "attention")
            kv = m.count("attention.kv_heads", heads)
            if kv % tp and tp % kv:
                self.out.add("E03", f"kv_heads {kv} and tp {tp}: neither divides the other", self.at("tp", "attention"))
        if any("mlp" in layer.blocks for layer in m.stack):
            self.need("the mlp width", m.count("mlp.hidden", tp), "tp", tp, "tp", "attention")

    def _batch(self) -> None:
        s = self.s
        ranks = self.degree("attention", "dp") if self.folded else s.dp * s.ep
        lanes = 2 if s.overlap == "two_batch" else 1
        parts = s.microbatches * s.replicas * ranks * lanes
        if self.phase.sequences % parts == 0:
            return
        terms = [
            ("microbatches", s.microbatches),
            ("replicas", s.replicas),
            ("dp", self.degree("attention", "dp")),
        ]
        terms += [] if self.folded else [("ep", s.ep)]
        terms += [("lanes", lanes)]
        shown = " x ".join(f"{n} {v}" for n, v in terms if v > 1)
        self.out.add(
            "E03", f"{self.phase.sequences} sequences do not divide over the {parts} parts of `{self.phase.name}`",
            self.at("microbatches", "dp", "attention", "ep"), because=(f"{shown} = {parts}",),
            help=("attention splits the batch over dp and (flat form) ep; every part needs as many sequences",),
        )  # fmt: skip

    def _sequence(self) -> None:
        sp, tp = self.degree("attention", "sp"), self.degree("attention", "tp")
        if self.phase.kind == "decode":
            self.need("context tokens", self.phase.context, "sp", sp, "sp", "context")
            return
        if self.phase.context != self.workload.prompt:
            self.out.add("E03", "the context of a prefill is its prompt", self.at("context"))
        self.need("prompt tokens", self.workload.prompt, "sp", sp, "sp", "attention")
        if self.s.sequence_parallel:
            self.need("prompt tokens", self.workload.prompt, "sp x tp", sp * tp, "sequence_parallel")
        if self.s.sp_method == "ulysses" and sp > 1:
            kv = self.model.count("attention.kv_heads", self.model.count("attention.heads", 0))
            group = self.model.count("attention.group", 1)
            if kv % (tp * sp) and (group % sp or kv % tp):
                self.out.add(
                    "E03", f"ulysses exchanges heads: kv_heads {kv} do not divide over tp {tp} x sp {sp}", self.at("sp_method"),
                    help=("use sp_method = allgather or ring",),
                )  # fmt: skip


def _times(fold: Fold) -> str:
    return " x ".join(f"{a} {n}" for a, n in fold.degrees)
