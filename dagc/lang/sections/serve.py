"""Elaboration of servings: which phases serve, what traffic comes, and how requests are scheduled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...base.diagnostics import Collector
from ...base.files import Unreadable, open_regular
from ...base.phase_kinds import DECODE, MIXED, PREFILL
from ...base.schema.serve import OPEN_IN_SERVINGS, SERVE
from ...base.schema.workload import ARRIVALS, LENGTHS, MOST_REQUESTS
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.engines import SCHEDULING, Scheduling, by_card
from ...spec.phase import Phase
from ...spec.serve import Arrivals, Lengths, Serve
from ...spec.workload import Workload
from ..body import Body
from ..pools import Pools
from ..reader import Reader
from ..values.evaluate import Value
from ..values.names import Names
from .forms import Form, Forms, read_form

KINDS = (PREFILL.name, DECODE.name, MIXED.name)

Values = Mapping[str, Value | None]


def read_serve(
    section: ast.Section,
    body: Body,
    names: Names,
    base: Path | None,
    pools: Pools,
    workload: Workload | None,
    phases: Sequence[Phase],
    joinings: Sequence[ast.Joining],
    *,
    whole: bool,
) -> Serve | None:
    """The serving, or None when something is wrong or missing. `phases`: those that could be read; `whole`: all could;
    `joinings`: what joins pools."""
    out, name = names.out, str(section.name)
    errors = out.errors
    if section.preset is not None:
        out.add("E12", "a serving has no presets", section.preset.span)
    values = Reader(f"serve {name}", body, SERVE, names, ("arrivals", "lengths"), open=OPEN_IN_SERVINGS).read()
    forms = {word: _form(word, takes, body, names) for word, takes in (("arrivals", ARRIVALS), ("lengths", LENGTHS))}
    arrivals, lengths = forms["arrivals"], forms["lengths"]
    if not whole or workload is None or not pools.whole:
        return None
    served = _Phases(values, body, phases, out).read()
    if served is None or arrivals is None or (lengths is None and "lengths" in body.assigns) or out.errors > errors:
        return None
    lengths = lengths or Form("trace" if arrivals.word == "trace" else "fixed", {}, {})
    came = _arrivals(arrivals, names, base)
    drawn = _lengths(lengths, values, workload, names, base)
    serve = (
        None
        if came is None or drawn is None
        else _serve(name, came, drawn, served, values, pools, section, body, (arrivals, lengths))
    )
    if serve is not None:
        _Checks(serve, {p.name: p for p in phases}, body, joinings, out).check()
    return serve if out.errors == errors else None


def _form(word: str, takes: Forms, body: Body, names: Names) -> Form | None:
    if word in body.sections:
        example = {"arrivals": "poisson(12 req/s)", "lengths": "uniform(80%, 100%)"}[word]
        names.out.add(
            "E08", f"`{word}` is a value, not a section", body.span_of(word), help=(f"write `{word} = {example}`",)
        )
    return read_form(word, body.assigns[word].value, takes, names) if word in body.assigns else None


def _serve(
    name: str, arrivals: Arrivals, lengths: Lengths, served: Mapping[str, Phase], values: Values, pools: Pools,
    section: ast.Section, body: Body, forms: Sequence[Form],
) -> Serve:  # fmt: skip
    """With the defaults of the engines: what a step takes, of the phase that takes prompts; the rest, of the one that generates."""
    takes = served.get(MIXED.name) or served.get(PREFILL.name) or served[DECODE.name]
    makes = served.get(DECODE.name) or served.get(MIXED.name) or served[PREFILL.name]
    front, back = SCHEDULING[takes.memory.engine], SCHEDULING[makes.memory.engine]

    def most(word: str, phase: Phase, defaults: Scheduling, steps: tuple[tuple[int, int], ...]) -> int:
        return max(1, _by_card(steps, phase, pools) // (_ranks(phase) if word in defaults.divided else 1))

    batch = _whole(values["batch_tokens"]) or _by_card(front.batch_tokens, takes, pools)
    chunk = _whole(values["chunk"]) or (min(batch, most("chunk", takes, front, front.chunk)) if front.chunk else None)
    slots = _whole(values["slots"]) or most("slots", makes, back, back.slots)
    return Serve(
        name, arrivals, lengths,
        **{kind: served[kind].name if kind in served else None for kind in KINDS},
        requests=_whole(values["requests"]),
        duration_s=_number(values["duration"]),
        seed=_whole(values["seed"]) or 0,
        policy=str(values["policy"]),
        prompts=str(values["prompts"] or front.prompts),
        batch_tokens=batch,
        chunk=chunk,
        slots=slots,
        kv_block=_whole(values["kv_block"]) or makes.kv_block,
        kv_tokens=_whole(values["kv_tokens"]),
        admit=str(values["admit"] or back.admit),
        preempt=str(values["preempt"]),
        prefix_cache=values["prefix_cache"] is True,
        prefix=_whole(values["prefix"]) or 0,
        queue=_whole(values["queue"]),
        route=str(values["route"]),
        workers=_whole(values["workers"]) or 1,
        prefill_workers=_whole(values["prefill_workers"]) or 1,
        roles=str(values["roles"]),
        switch_s=_number(values["switch"]),
        weights=str(values["weights"]),
        hand_over=str(values["hand_over"]),
        host_s=_number(values["host"]),
        launch_s=_number(values["launch"]),
        request_s=_number(values["request"]),
        balance=_whole(values["balance"]) or 0,
        gather=_whole(values["gather"]) or 0,
        span=section.kind_span,
        spans={
            **body.spans(),
            **forms[0].spans,
            **{f"lengths.{word}": span for word, span in forms[1].spans.items()},
        },
    )  # fmt: skip


def _by_card(steps: tuple[tuple[int, int], ...], phase: Phase, pools: Pools) -> int:
    """An engine's default on the GPUs of a phase."""
    own = pools.of(phase.hardware)
    assert own is not None
    return by_card(steps, own)


def _ranks(phase: Phase) -> int:
    """Attention-DP ranks of one worker."""
    return phase.batching.ranks // phase.strategy.replicas


def _number(value: Value | None) -> float | None:
    return value.value if isinstance(value, Quantity) else None


def _whole(value: Value | None) -> int | None:
    return int(value.value) if isinstance(value, Quantity) else None


class _Phases:
    """Which phases serve: those that are named, or the only one of a kind."""

    def __init__(self, values: Values, body: Body, phases: Sequence[Phase], out: Collector) -> None:
        self.values, self.body, self.out = values, body, out
        self.phases = {p.name: p for p in phases}

    def read(self) -> dict[str, Phase] | None:
        """Kind -> phase; None where they cannot serve, which is reported."""
        errors = self.out.errors
        found = {kind: phase for kind in KINDS if (phase := self._one(kind)) is not None}
        if self.out.errors > errors:
            return None
        for needed, what in ((DECODE, "generates"), (PREFILL, "takes prompts in")):
            if needed.name not in found and MIXED.name not in found:
                help_ = (f"`phase {needed.name} {{ ... }}`",)
                self.out.add(
                    "E10",
                    f"no phase {what}: a serving needs a {needed.name} or a mixed phase",
                    self.body.span,
                    help=help_,
                )
        return None if self.out.errors > errors else found

    def _one(self, kind: str) -> Phase | None:
        given = self.values[kind]
        span = self.body.span_of(kind)
        if given == "none" and "none" not in self.phases:
            return None
        if given is None:
            of_kind = [p for p in self.phases.values() if p.kind == kind]
            if len(of_kind) > 1 and kind not in self.body.assigns:
                both = " and ".join(f"`{p.name}`" for p in of_kind[:2])
                more = f", and {len(of_kind) - 2} more" if len(of_kind) > 2 else ""
                self.out.add(
                    "E10",
                    f"it is not said which {kind} phase serves: {both}{more}",
                    span,
                    help=(f"write `{kind} = {of_kind[0].name}`",),
                )
            return of_kind[0] if len(of_kind) == 1 else None
        phase = self.phases.get(str(given))
        if phase is None:
            near = self.out.near(str(given), self.phases)
            hint = f"did you mean `{near}`?" if near else f"phases: {', '.join(self.phases) or 'none'}"
            self.out.add("E02", f"there is no phase `{given}`", span, help=(hint,))
        elif phase.kind != kind:
            self.out.add("E03", f"`{given}` is a {phase.kind} phase", span, help=(f"write `{phase.kind} = {given}`",))
            return None
        return phase


def _arrivals(form: Form, names: Names, base: Path | None) -> Arrivals | None:
    numbers = {name: value.value for name, value in form.values.items() if isinstance(value, Quantity)}
    path = _file(form, names, base)
    if "file" in form.values and path is None:
        return None
    return Arrivals(
        form.word, numbers.get("rate", 0.0), numbers.get("cv", 1.0), int(numbers.get("clients", 0)), numbers.get("think", 0.0), path,
        numbers.get("speed", 1.0),
    )  # fmt: skip


def _lengths(form: Form, values: Values, workload: Workload, names: Names, base: Path | None) -> Lengths | None:
    numbers = {name: value.value for name, value in form.values.items() if isinstance(value, Quantity)}
    path = _file(form, names, base)
    if "file" in form.values and path is None:
        return None
    return Lengths(
        form.word, _whole(values["prompt"]) or workload.prompt, _whole(values["output"]) or workload.output, numbers.get("low", 1.0),
        numbers.get("high", 1.0), numbers.get("cv", 0.0), path,
    )  # fmt: skip


def _file(form: Form, names: Names, base: Path | None) -> Path | None:
    """The real path of the form's file, which can be opened. What it says is read when requests are made."""
    given = form.values.get("file")
    if not isinstance(given, str):
        return None
    try:
        path = names.find(given, base)
        open_regular(path).close()
    except Unreadable as error:
        names.out.add("E05", f"cannot read `{given}`: {error}", form.spans["file"], help=error.help)
        return None
    return path


class _Checks:
    """Words that contradict each other, or that nothing heeds."""

    def __init__(
        self, serve: Serve, phases: Mapping[str, Phase], body: Body, joinings: Sequence[ast.Joining], out: Collector
    ) -> None:
        self.serve, self.body, self.out = serve, body, out
        self.joined = {frozenset(one.names) for one in joinings}
        self.prefill, self.decode, self.mixed = (
            phases.get(n or "") for n in (serve.prefill, serve.decode, serve.mixed)
        )

    def check(self) -> None:
        apart = self._pools()
        self._end()
        self._sizes()
        self._heeded(apart)

    def _pools(self) -> bool:
        """Whether prompts are taken in on GPUs of their own. On the same GPUs, or some of them, it is the same workers."""
        apart = False
        makes = self.decode or self.mixed
        for other in (self.prefill, self.mixed):
            if other is None or makes is None or other is makes:
                continue
            own, others = makes.seats, other.seats
            if others and (own <= others or others <= own):
                continue
            if own & others or other is self.mixed:
                has = "some of its GPUs, not all, in common with" if own & others else "none of the GPUs of"
                help_ = "phases of one worker run on its GPUs; a prefill may have GPUs of its own"
                self._add("E03", f"`{other.name}` has {has} `{makes.name}`", other.kind, help_)
            else:
                apart = True
        if apart and self.prefill is not None and makes is not None:
            self._linked(self.prefill.hardware, makes.hardware)
        if apart and self.mixed is not None:
            why = f"the workers of `{self.mixed.name}` get no prompts: `{self.serve.prefill}` has GPUs of its own"
            self._add("E12", why, "mixed", "write `mixed = none`, or `prefill = none`")
        return apart

    def _linked(self, source: str, target: str) -> None:
        if source != target and frozenset((source, target)) not in self.joined:
            what = f"its prefill runs on `{source}`, its decode on `{target}`, and no link joins them for the caches"
            self._add(
                "E10", what, "prefill", f"write `link {source} to {target} {{ bandwidth = 50 GB/s, latency = 6 us }}`"
            )

    def _end(self) -> None:
        s = self.serve
        if s.requests is None and s.duration_s is None and s.arrivals.kind != "trace":
            self._add(
                "E10",
                "nothing ends it: give `requests`, `duration`, or both (what comes first ends it)",
                "",
                "write `requests = 1000`",
            )
        elif s.arrivals.kind == "burst" and s.requests is None:
            self._add("E10", "a burst needs `requests`: how many come at once", "arrivals")
        if (
            s.duration_s is not None
            and s.arrivals.rate_per_s * s.duration_s > MOST_REQUESTS
            and (s.requests or MOST_REQUESTS + 1) > MOST_REQUESTS
        ):
            self._add(
                "E09",
                f"{s.arrivals.rate_per_s * s.duration_s:.3g} requests come in that time: {MOST_REQUESTS:.0e} at most",
                "duration",
            )
        if s.lengths.kind == "trace" and s.arrivals.kind != "trace":
            self._add(
                "E12",
                "`lengths = trace` needs a trace",
                "lengths",
                'write `arrivals = trace("F.csv")`, or `lengths = histogram("F.csv")`',
            )

    def _sizes(self) -> None:
        s, given = self.serve, self.body.assigns
        n = s.lengths
        if n.kind == "uniform" and n.low > n.high:
            self._add("E03", f"the least share, {100 * n.low:g}%, is above the largest, {100 * n.high:g}%", "lengths")
        if n.kind in ("trace", "histogram"):
            for word in ("prompt", "output"):
                if word in given:
                    self._add("E12", f"`{word}` has no effect: lengths are those of the {n.kind}", word)
        if s.chunk is not None and s.chunk > s.batch_tokens and "chunk" in given:
            self._add("E03", f"a chunk of {s.chunk} tokens is more than a step takes: {s.batch_tokens}", "chunk")
        step = min(s.chunk or s.batch_tokens, s.batch_tokens)
        came = s.requests or s.arrivals.rate_per_s * (s.duration_s or 0.0)
        longest = n.prompt * (n.high if n.kind == "uniform" else 1.0)
        drawn = s.arrivals.kind != "trace" and n.kind != "histogram" and came <= MOST_REQUESTS
        if drawn and came * -(-longest // step) > MOST_REQUESTS:
            why = f"{came:.3g} prompts of {longest:.0f} tokens take more than {MOST_REQUESTS:.0e} steps of {step}"
            self._add("E09", why, "chunk" if "chunk" in given else "batch_tokens")
        if s.kv_tokens is not None:
            most = {"fixed": 1.0, "uniform": n.high, "lognormal": 1.0}.get(n.kind, 0.0)
            prompt, output = (max(1, int(most * x)) for x in (n.prompt, n.output))
            if s.kv_tokens // s.kv_block * s.kv_block < (prompt + output if most else 1):
                what = f"one request of {prompt} + {output} tokens" if most else f"one block of {s.kv_block} tokens"
                self._add("E03", f"`kv_tokens` of {s.kv_tokens} cannot hold {what}", "kv_tokens")
        if s.prefix and n.kind in ("fixed", "uniform") and s.prefix > int(min(1.0, n.low) * n.prompt):
            self._add("E03", f"a shared prefix of {s.prefix} tokens is longer than a prompt", "prefix")

    def _heeded(self, apart: bool) -> None:
        """A word without the one that it needs; where that is written too, a sweep may go through its values."""
        s, given = self.serve, self.body.assigns
        trace = s.arrivals.kind == "trace"
        if s.policy == "priority" and not trace:
            self._add(
                "E12",
                "`policy = priority` needs a trace with a column `priority`: all requests have the same one",
                "policy",
            )
        if s.prefix and "prefix_cache" not in {*given, *self.body.bare}:
            self._add("E12", "`prefix` has no effect without a prefix cache", "prefix", "write `prefix_cache = true`")
        if s.prefix and trace:
            self._add("E12", "`prefix` has no effect: what prompts share is said by the trace", "prefix")
        if s.prefix_cache and "prefix" not in given and not trace:
            self._add(
                "E12",
                "no prompts share anything: `prefix_cache` has no effect",
                "prefix_cache",
                "write `prefix = 512 tok`, or take a trace with blocks",
            )
        if s.route == "prefix" and not s.prefix_cache:
            self._add("E12", "`route = prefix` needs a prefix cache", "route", "write `prefix_cache = true`")
        if s.queue is not None and s.arrivals.clients and not s.arrivals.think_s:
            self._add(
                "E12",
                "who is turned away would ask again at once, forever: `queue` needs `think` in a closed loop",
                "queue",
                "`closed(64, think = 1 s)`",
            )
        for word, needs in (("prefill_workers", apart), ("hand_over", apart)):
            if word in given and not needs:
                self._add("E12", f"`{word}` has no effect: prompts are taken in on the GPUs of the decode", word)
        if "gather" in given and "balance" not in given:
            self._add("E12", "`gather` has no effect without `balance`", "gather", "write `balance = 50`")
        if "switch" in given and "roles" not in given:
            self._add("E12", "`switch` has no effect without `roles = switch`", "switch")
        if "weights" in given and "roles" not in given:
            self._add("E12", "`weights` has no effect without `roles = switch`", "weights")
        if s.moves and apart:
            self._add(
                "E12", "`weights = moved` is of phases on the same GPUs: here each has GPUs of its own", "weights"
            )
        if s.roles == "switch" and (self.prefill is None or self.decode is None):
            self._add("E12", "`roles = switch` needs a prefill and a decode to change between", "roles")
        if s.roles == "switch" and apart and self.prefill is not None and self.decode is not None:
            if self.prefill.hardware != self.decode.hardware:
                self._add(
                    "E03",
                    f"workers that change roles are on one pool of GPUs, not on `{self.prefill.hardware}` and `{self.decode.hardware}`",
                    "roles",
                )
            sizes = [len(p.gpus) // p.strategy.replicas for p in (self.prefill, self.decode)]
            if sizes[0] != sizes[1]:
                self._add(
                    "E03", f"workers that change roles have equally many GPUs: {sizes[0]} and {sizes[1]}", "roles"
                )

    def _add(self, code: str, message: str, word: str, help: str = "") -> None:
        self.out.add(code, message, self.body.span_of(word), help=(help,) if help else ())
