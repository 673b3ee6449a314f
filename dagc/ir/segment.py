"""A segment: one layer, which represents `repeat` equal ones, with its sizes and what follows from its ops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any, Protocol

from ..base.collectives import ACROSS, FROM_EXPERTS
from ..base.frozen import record, replace
from ..base.phase_kinds import is_of_prompts, is_part
from .entries import derived
from .naming import scope_and_dim, size_key
from .noted_sizes import with_others
from .op import SCOPES, Op, Taken, Value, Weight
from .ops.attributes.attention import AttendAttrs
from .ops.attributes.copies import CopyAttrs, ExpertCopyAttrs
from .ops.attributes.moves import CollectiveAttrs, SliceAttrs
from .ops.attributes.training import FetchAttrs, QuantiseAttrs
from .sharding import Sharding

OF_COPIES = (CollectiveAttrs, SliceAttrs, QuantiseAttrs)
"""What makes a copy of a weight of another one."""

PACKED_BATCH = "packed:batch"
"""Ranks that have tokens of their own, in the sizes that a part of a mixed step sees."""


@record(slots=False)
class Segment:
    """A layer of the stack. `sizes`: dimension -> size; a key `experts:expert` overrides it in that scope.

    In a mixed step `batch` counts ranks that have tokens of their own, and `seq` the tokens of one of them, packed: those of
    each part in turn. Ops of a part see its own `batch`, `seq` and `context` (`within`).

    In a training step `upstream` is the gradient of the output, which the layer behind hands back (none where the loss is), and
    `downstream` the value that is handed on: the gradient of the input.

    `taken` are values that earlier layers handed on beside the residual stream, `handed` those that this one hands on, by the name under
    which later layers take them. All that a layer takes was there before its input, which follows from it. Of these names `gets` are
    the gradients that layers behind hand back, added up over those that read the value, and `gives` those that this one hands back, with its own."""

    name: str
    repeat: int
    input: str
    input_dims: tuple[str, ...]
    input_dtype: str
    ops: tuple[Op, ...]
    output: str
    weights: tuple[Weight, ...]
    sizes: Mapping[str, float]
    entry: Sharding | None = None  # layout of the input, set by reshard
    upstream: Value | None = None
    downstream: str = ""
    taken: tuple[Taken, ...] = ()
    handed: tuple[tuple[str, str], ...] = ()
    gets: tuple[tuple[str, Value], ...] = ()
    gives: tuple[tuple[str, str], ...] = ()

    def size(self, dim: str, scope: str = "dense") -> float:
        if scope != "dense" and (own := size_key(scope, dim)) in self.sizes:
            return self.sizes[own]
        found = self.sizes.get(dim)
        return derived(self, dim, scope) if found is None else found

    def count(self, dims: tuple[str, ...], scope: str = "dense") -> float:
        """Elements of a tensor."""
        return prod(self.size(d, scope) for d in dims)

    def with_sizes(self, sizes: Mapping[str, float]) -> Segment:
        """The same ops at other sizes, with all that is known of them."""
        found = object.__new__(Segment)
        known = {**self.__dict__, "sizes": sizes, "programs": self.programs}
        for name in OF_SIZES:
            known.pop(name, None)
        found.__dict__.update(known)
        return found

    def with_ops(self, ops: tuple[Op, ...]) -> Segment:
        """Other ops of the same sizes; of the same names, operands and dims, with all that is known of these."""
        found = replace(self, ops=ops)
        same = all(
            a.name is b.name and a.inputs is b.inputs and a.dims is b.dims and a.more is b.more
            for a, b in zip(ops, self.ops, strict=True)
        )
        if same:
            found.__dict__.update({name: self.__dict__[name] for name in OF_NAMES if name in self.__dict__})
        return found

    def within(self, scope: str) -> Segment:
        """The segment as ops of a part of a mixed step see it: with the sizes of that part. Of other scopes itself."""
        return self if scope in SCOPES else self._parts.get(scope, self)

    @cached_property
    def _parts(self) -> Mapping[str, Segment]:
        found: dict[str, dict[str, float]] = {}
        for key in self.sizes:
            scope, dim = scope_and_dim(key)
            if scope and scope not in SCOPES:
                found.setdefault(scope, {})[dim] = self.sizes[key]
        packed = {PACKED_BATCH: self.sizes["batch"]} if found else {}
        return {scope: replace(self, sizes=with_others(self.sizes, packed | own)) for scope, own in found.items()}

    @property
    def parts(self) -> tuple[str, ...]:
        """Scopes of the parts of a mixed step, in the order in which their tokens are packed; none in other graphs."""
        found = (scope for scope, dim in map(scope_and_dim, self.sizes) if dim == "batch" and is_part(scope))
        return tuple(sorted(found, key=lambda scope: (is_of_prompts(scope), len(scope), scope)))

    @cached_property
    def by_name(self) -> dict[str, Op]:
        """The op that a value is a result of."""
        ops = {op.name: op for op in self.ops}
        for op in self.ops:
            for value in op.more:
                ops[value.name] = op
        return ops

    @cached_property
    def _sources(self) -> dict[str, tuple[str, ...]]:
        return {
            op.name: tuple(
                dict.fromkeys(
                    self.by_name[n].name if n in self.by_name else self.arrives_with(n)
                    for n in op.inputs
                    if not n.startswith("@")
                )
            )
            for op in self.ops
        }

    def sources(self, op: Op) -> tuple[str, ...]:
        """What an op waits for, each once: other ops by name, and the segment's input."""
        return self._sources[op.name]

    @cached_property
    def copied(self) -> bool:
        """Whether anything is copied between GPUs and their hosts."""
        return any([isinstance(op.attrs, CopyAttrs) for op in self.ops])

    def waits(self, op: Op) -> tuple[tuple[str, ...], bool]:
        """The same in the order of time: copies for the layer behind begin with their layer; and whether the op waits for those of the
        layer before, which it reads."""
        sources = self._sources[op.name]
        if not self.copied:
            return sources, False
        if op.is_ahead:
            return (self.input,), False
        now = tuple(name for name in sources if name not in self.by_name or not self.by_name[name].is_ahead)
        return now, len(now) < len(sources)

    def is_further(self, name: str) -> bool:
        """Whether a value is a result of its op after the first."""
        return name in self.by_name and self.by_name[name].name != name

    def is_given(self, name: str) -> bool:
        """Whether other layers make a value: the input, what comes beside it, or the gradient of the output or of what goes beside that."""
        return name == self.input or name in self.handed_back or name in self.beside

    @cached_property
    def handed_back(self) -> Mapping[str, Value]:
        """Gradients that layers behind hand back, by name."""
        own = () if self.upstream is None else (self.upstream,)
        return {value.name: value for value in (*own, *(value for _, value in self.gets))}

    @cached_property
    def beside(self) -> Mapping[str, Taken]:
        """What earlier layers handed on, by name."""
        return {one.name: one for one in self.taken}

    def arrives_with(self, name: str) -> str:
        """The value with which one that other layers make is there: what comes beside the input was there before it, and gradients of that
        come with the output's."""
        if name in self.beside:
            return self.input
        return self.upstream.name if self.upstream is not None and name in self.handed_back else name

    def result(self, name: str) -> Op | Value:
        """A value of the segment by its name."""
        if name in self.beside:
            one = self.beside[name]
            return Value(one.name, one.dims, one.dtype, one.sharding)
        if name in self.handed_back:
            return self.handed_back[name]
        op = self.by_name[name]
        return op if op.name == name else next(value for value in op.more if value.name == name)

    @cached_property
    def crosses(self) -> bool:
        """Whether something goes to experts on GPUs of their own."""
        return any(op.kind in ACROSS for op in self.ops)

    @cached_property
    def between(self) -> frozenset[str]:
        """Ops that follow the last return from experts on GPUs of their own. Where lanes take turns they run as soon as what they read
        is there, between two kernels of another lane; the time that they take that lane follows its layer."""
        last = max((k for k, op in enumerate(self.ops) if op.kind == FROM_EXPERTS), default=len(self.ops))
        return frozenset(op.name for op in self.ops[last + 1 :] if not op.on)

    @cached_property
    def weight(self) -> dict[str, Weight]:
        return {w.name: w for w in self.weights}

    @cached_property
    def copies(self) -> Mapping[str, str]:
        """Values that are copies of a stored weight, fetched, then moved between layouts and quantised -> the weight."""
        found: dict[str, str] = {}
        for op in self.ops:
            if isinstance(op.attrs, (FetchAttrs, ExpertCopyAttrs)) or (
                isinstance(op.attrs, QuantiseAttrs) and op.inputs[0].startswith("@")
            ):
                found[op.name] = op.inputs[0]
            elif isinstance(op.attrs, OF_COPIES) and op.inputs and op.inputs[0] in found:
                found[op.name] = found[op.inputs[0]]
        return found

    def is_weight(self, name: str) -> bool:
        """Whether an operand is a weight, or a copy of one."""
        return name.startswith("@") or name in self.copies

    def weight_of(self, name: str) -> Weight:
        """The weight that such an operand is, or is a copy of."""
        return self.weight[self.copies.get(name, name)]

    @cached_property
    def reach(self) -> Mapping[str, tuple[int | None, int | None]]:
        """(window, chunk) behind which no attention reads a value, also through projections and collectives of it; None:
        it reads the whole context, or the attentions that read it differ in it."""
        found: dict[str, tuple[int | None, int | None]] = {}
        for op in reversed(self.ops):
            own: tuple[int | None, int | None] = (None, None)  # a choice of tokens, or a sum over them
            if isinstance(op.attrs, AttendAttrs):
                if not op.attrs.chosen:
                    own = op.attrs.window or None, op.attrs.chunk or None
            elif "context" in op.dims:
                own = found.get(op.name, (None, None))
            further: tuple[str, ...] = ()  # entries of groups, and what was chosen of them
            if isinstance(op.attrs, AttendAttrs) and op.attrs.entries:
                further = op.inputs[2 * op.attrs.pairs + 1 :]
            for name in op.inputs:
                mine = (None, None) if name in further else own
                other = found.get(name, mine)
                window = None if mine[0] is None or other[0] is None else max(mine[0], other[0])
                found[name] = (window, mine[1] if mine[1] == other[1] else None)
        return found

    def dims_of(self, name: str) -> tuple[str, ...]:
        """Dims of an input by its name: a weight (`@W`), the segment's input, or an op's result."""
        return self._dims[name]

    @cached_property
    def _dims(self) -> dict[str, tuple[str, ...]]:
        found = {value.name: value.dims for op in self.ops for value in op.more}
        found |= {op.name: op.dims for op in self.ops}
        found |= {weight.name: weight.dims for weight in self.weights}
        found[self.input] = self.input_dims
        found |= {one.name: one.dims for one in self.taken}
        found |= {value.name: value.dims for value in self.handed_back.values()}
        return found

    @cached_property
    def asked(self) -> dict[object, Any]:
        """Answers about names, operands and dims of its ops, kept by whoever asks."""
        return {}

    @cached_property
    def flops(self) -> Counts:
        """Of its ops, as far as somebody has counted them."""
        return {}

    @cached_property
    def programs(self) -> dict[object, Any]:
        """In which order its ops run, kept by whoever schedules them."""
        return {}

    def dtype_of(self, name: str) -> str:
        if name.startswith("@"):
            return self.weight[name].dtype
        return self.input_dtype if name == self.input else self.result(name).dtype

    def sharding_of(self, name: str) -> Sharding | None:
        if name.startswith("@"):
            return self.weight[name].sharding
        return self.entry if name == self.input else self.result(name).sharding

    def scope_of(self, name: str) -> str:
        if name.startswith("@"):
            return self.weight[name].scope
        if name in self.beside:
            return self.beside[name].scope
        return "dense" if self.is_given(name) else self.by_name[name].scope

    def users(self, name: str) -> Iterator[Op]:
        return (op for op in self.ops if name in op.inputs)

    def readers(self, weight: str) -> Iterator[Op]:
        """The ops that compute with a weight, or with a copy of it."""
        names = {weight, *(copy for copy, of in self.copies.items() if of == weight)}
        return (op for op in self.ops if op.name not in self.copies and not names.isdisjoint(op.inputs))


class Counts(Protocol):
    """FLOPs by names of ops, each with the op that has them."""

    def get(self, name: str, /) -> tuple[Op, float] | None: ...

    def __setitem__(self, name: str, found: tuple[Op, float], /) -> None: ...


OF_SIZES = ("_parts", "flops")
"""What is known of a segment that follows from its sizes."""
OF_NAMES = ("weight", "_sources", "_dims", "asked", "copied")
"""What is known of a segment that follows from names, operands and dims of its ops."""
