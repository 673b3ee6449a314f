"""Pools of GPUs: the hardware sections of a spec, which of them a phase runs on, and the links that join them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..base.diagnostics import Collector, Label
from ..base.frozen import record
from ..base.schema.attribute import ANY
from ..base.schema.hardware import POOL_LINK
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import BYTE_RATE, TIME, Quantity
from ..spec.hardware import Hardware, PoolLink
from ..spec.phase import Phase
from .body import Body
from .doubts import doubt_link
from .reader import Reader
from .values.names import Names

MAX_NAME = 64
"""Characters of the name of a pool."""
MAX_POOLS = 64


def _is_name(text: str) -> bool:
    """Phases, links and requirements name it."""
    return len(text) <= MAX_NAME and text.isascii() and text.isidentifier()


@record
class Pools:
    """`known`: name -> hardware, None where it cannot be read. `several`: a phase says which it runs on. `sure`: all of them
    are known by name."""

    known: Mapping[str, Hardware | None]
    several: bool = False
    sure: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Those that requirements can name in addition to `hardware`, which is the only one."""
        return tuple(self.known) if self.several else ()

    @property
    def first(self) -> Hardware | None:
        return next(iter(self.known.values()), None)

    @property
    def whole(self) -> bool:
        """All could be read."""
        return self.sure and bool(self.known) and None not in self.known.values()

    def of(self, name: str) -> Hardware | None:
        """That of a phase; nothing: the only one."""
        return self.known.get(name) if name else self.first

    def named_by(self, given: object, body: Body, phase: ast.Section, names: Names) -> str | None:
        """The pool that a phase runs on, by name where there are several; None where that is wrong, which is reported."""
        out = names.out
        if given is None and "hardware" not in body.assigns:
            if self.several and self.sure and not (out.incomplete or body.partial):
                listed = ", ".join(self.known)
                message = f"phase `{phase.name}` does not say on which of the {len(self.known)} pools it runs"
                first = next(iter(self.known))
                out.add("E10", message, phase.kind_span, help=(f"write `hardware = {first}` (pools: {listed})",))
            return None if self.several else ""
        if not isinstance(given, str) or given in names.unknown:
            return None
        if given in self.known:
            return given if self.several else ""
        if self.sure and self.known:
            out.add("E02", f"there is no pool `{given}`", body.span_of("hardware"), help=(self.meant(given, out),))
        return None

    def meant_by(self, body: Body) -> Hardware | None:
        """The hardware of a phase that is not read yet; None where that cannot be told."""
        said = body.assigns.get("hardware")
        if said is None:
            return None if self.several else self.first
        if isinstance(said.value, ast.Name | ast.String):
            return self.known.get(said.value.text if isinstance(said.value, ast.Name) else said.value.value)
        return None

    def most(self, body: Body) -> int | None:
        """GPUs that a phase may have, on whatever pool; None where that cannot be told."""
        own = self.meant_by(body)
        every = [own] if own is not None else [h for h in self.known.values() if h is not None]
        return max((h.gpus for h in every), default=None)

    def meant(self, given: str, out: Collector) -> str:
        """Help for a name that no pool has."""
        near = out.near(given, self.known)
        if near is not None:
            return f"did you mean `{near}`?"
        if not self.several and not _is_name(next(iter(self.known))):
            return "the only pool needs no name: leave it out, or write `hardware NAME from ... { ... }`"
        return f"pools: {', '.join(self.known)}"


def several(sections: Sequence[ast.Section]) -> bool:
    """Pools of their own, rather than the same one given twice."""
    return len(sections) > 1 and (len({s.name for s in sections}) > 1 or any(s.preset is not None for s in sections))


def read_pools(
    sections: Sequence[ast.Section],
    read: Callable[[int], Hardware | None],
    owners: Mapping[str, tuple[str, Span | None]],
    out: Collector,
) -> Pools | None:
    """The pools of several sections; `read` gives the hardware of the i-th. `owners`: what else requirements name, what it is and
    where. None where there are more than can be."""
    if len(sections) > MAX_POOLS:
        message = f"a spec has at most {MAX_POOLS} pools of GPUs, this one {len(sections)}"
        out.add("E03", message, sections[MAX_POOLS].kind_span)
        return None
    known: dict[str, Hardware | None] = {}
    seen: dict[str, Span] = {}
    sure = True
    for i, section in enumerate(sections):
        name = section.name
        if name is None:
            source = f' from "{section.preset.value}"' if section.preset is not None else ""
            help_ = (f"write `hardware NAME{source} {{ ... }}`, and `hardware = NAME` in its phases",)
            out.add("E10", "one of several pools of GPUs needs a name", section.kind_span, help=help_)
        elif not _is_name(name) or name == ANY:
            help_ = ("letters, digits and `_`, beginning with a letter or `_`: phases name it without quotes",)
            if name == ANY:
                help_ = ("`hardware = any` leaves the pool of a phase to a search",)
            out.add("E08", f"`{name}` cannot be the name of a pool", section.kind_span, help=help_)
        elif name in seen:
            first = Label(seen[name], "first here")
            out.add("E11", f"pool `{name}` is defined twice", section.kind_span, "again here", also=(first,))
        elif name in owners:
            what, at = owners[name]
            also = () if at is None else (Label(at, f"the {what}"),)
            message = f"requirements could not tell the pool `{name}` from the {what} of that name"
            out.add("E11", message, section.kind_span, also=also)
            seen[name] = section.kind_span
            known[name] = read(i)
            continue
        else:
            seen[name] = section.kind_span
            known[name] = read(i)
            continue
        sure = False
        read(i)  # what is wrong inside it is said in the same run
    return Pools(known, several=True, sure=sure)


def read_pool_links(joinings: Iterable[ast.Joining], pools: Pools, names: Names) -> tuple[PoolLink, ...]:
    """The links between pools, each pair once."""
    out = names.out
    found: list[PoolLink] = []
    seen: dict[frozenset[str], Span] = {}
    for joining in joinings:
        left, right = joining.names
        span = joining.kind_span.to(joining.name_spans[1])
        wrong = False
        for name, at in zip(joining.names, joining.name_spans, strict=True):
            if name not in pools.known:
                wrong = True
                if pools.sure and pools.known:
                    out.add("E02", f"there is no pool `{name}`", at, help=(pools.meant(name, out),))
        pair = frozenset(joining.names)
        if not wrong and left == right:
            help_ = ("links inside a pool are written in its hardware section: `link node { ... }`",)
            out.add("E03", f"this link joins `{left}` to itself", span, help=help_)
            wrong = True
        elif pair in seen:
            also = (Label(seen[pair], "first here"),)
            out.add("E11", f"`{left}` and `{right}` are joined twice", span, "again here", also=also)
            wrong = True
        seen.setdefault(pair, span)
        link = _link(joining, names)
        if link is not None and not wrong:
            found.append(link)
    return tuple(found)


def _link(joining: ast.Joining, names: Names) -> PoolLink | None:
    body = Body(joining.kind_span)
    body.add(joining.body, names.out)
    values = Reader("link", body, POOL_LINK, names).read()
    bandwidth, latency = values["bandwidth"], values["latency"]
    if not isinstance(bandwidth, Quantity) or not isinstance(latency, Quantity):
        return None
    doubt_link(
        body, {"bandwidth": Quantity(bandwidth.value, BYTE_RATE), "latency": Quantity(latency.value, TIME)}, names.out
    )
    return PoolLink(joining.names, bandwidth.value, latency.value, joining.kind_span)


def check_expert_link(phase: Phase, links: Sequence[PoolLink], out: Collector) -> None:
    """Experts in another pool than their phase need a link to it."""
    apart = phase.strategy.apart
    if apart is None or not apart.hardware or any(set(one.pools) == {phase.hardware, apart.hardware} for one in links):
        return
    message = f"no link joins `{phase.hardware}` and `{apart.hardware}`, which has the experts of `{phase.name}`"
    help_ = (f"write `link {phase.hardware} to {apart.hardware} {{ bandwidth = ..., latency = ... }}`",)
    out.add("E03", message, phase.spans.get("experts", phase.span), help=help_)
