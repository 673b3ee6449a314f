"""Traces of PyTorch's profiler (Kineto), in Chrome's format: one file per rank, of which memory has the kernels alone."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..execute.marks import METADATA
from .by_place import of_experts, of_streams
from .called import PREFIX, called
from .gemm_shapes import product_of
from .json_stream import JsonStream
from .kernel_classes import EXCHANGE, KernelClass, classes
from .nccl_metadata import call_of
from .product_shapes import named
from .rank_trace import NO_PRODUCTS, Call, HostCalls, Kernels, Marks, Product, Products, RankTrace
from .trace_fault import TraceFault

GPU = frozenset(("kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset"))
"""Categories of what a GPU did; capital ones are of the first versions. Source: pytorch/kineto, libkineto/src/output_json.cpp."""
LAUNCHES = frozenset(("cuda_runtime", "cuda_driver", "hip_runtime", "privateuse1_runtime", "xpu_runtime", "Runtime"))
OPS = frozenset(("cpu_op", "Operator"))
GPU_MARKS = "gpu_user_annotation"
MARKS = frozenset((GPU_MARKS, "user_annotation"))
WANTED = frozenset(name.encode() for name in GPU | LAUNCHES | OPS | MARKS)
_CATEGORY = re.compile(rb'"cat"\s*+:\s*+"([^"\\]*+)"')

MOST_KERNELS, MOST_HOST_EVENTS = 8_000_000, 16_000_000
"""Of one file: 60 and 24 bytes each."""
MOST_NAMES = 200_000
MOST_NAME = 600
"""Characters of a name that are kept: classes are told by the beginning, and the rest is template arguments."""
MOST_CALLS = 1_000_000
MOST_US = 1e16
"""Of a time: the year 2286."""
RANK = re.compile(r"(?i)(?:^|[^a-z])rank[-_ ]?(\d{1,6})(?!\d)")
TP_RANK = re.compile(r"(?:^|[^A-Za-z])TP-(\d{1,6})(?!\d)")


def read(path: Path) -> RankTrace:
    """Raises TraceFault. A trace without kernels has empty columns."""
    stream = JsonStream(path, ("distributedInfo", "deviceProperties", "baseTimeNanoseconds", METADATA))
    found = _Reading(stream)
    for text in stream.elements("traceEvents"):
        found.take(text)
    return found.trace()


@dataclass(slots=True)
class _Names:
    """Texts by number."""

    most: int
    path: Path
    number: dict[Any, int] = field(default_factory=dict)

    def of(self, name: Any) -> int:
        at = self.number.get(name)
        if at is None:
            at = len(self.number)
            if at >= self.most:
                raise TraceFault(self.path, f"has more than {self.most:,} names of kernels, ops and marks")
            self.number[name] = at
        return at


def _doubles() -> array[float]:
    return array("d")


def _longs() -> array[int]:
    return array("q")


@dataclass(slots=True)
class _Columns:
    """Of events of one sort, in the order of the file. Times in microseconds."""

    start: array[float] = field(default_factory=_doubles)
    time: array[float] = field(default_factory=_doubles)
    whole: tuple[array[int], ...] = ()

    def add(self, start: float, time: float, *whole: int) -> None:
        if not self.whole:
            self.whole = tuple(_longs() for _ in whole)
        self.start.append(start)
        self.time.append(time)
        for column, value in zip(self.whole, whole, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self.start)


def _number(value: Any, most: float = float(2**62)) -> float | None:
    """A finite number; a text of one too, as some profilers write ids."""
    if type(value) in (int, float) and -most <= value <= most:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and len(value) < 30:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        return None
    return float(value) if isinstance(value, float) else value


def _whole(value: Any, otherwise: int = -1) -> int:
    found = _number(value)
    return otherwise if found is None else int(found)


def _last(tid: Any) -> Any:
    """The first versions have a thread `stream 7`."""
    return tid.rpartition(" ")[2] if isinstance(tid, str) else tid


class _Reading:
    def __init__(self, stream: JsonStream) -> None:
        self.stream, self.path = stream, stream.path
        self.names = _Names(MOST_NAMES, self.path)
        self.calls, self.plain_calls = _Names(MOST_CALLS, self.path), _Names(MOST_CALLS, self.path)
        self.sizes = _Names(MOST_CALLS, self.path)
        self.kernels, self.marks, self.host_calls, self.dispatched = _Columns(), _Columns(), _Columns(), _Columns()
        self.ops, self.launches = _Columns(), _Columns()
        self.events = self.broken = 0
        self.products = NO_PRODUCTS

    def take(self, text: bytes) -> None:
        self.events += 1
        category = _CATEGORY.search(text)
        if category is None or category[1] not in WANTED:
            return
        event = self.stream.decoded(text)
        if not isinstance(event, dict) or event.get("ph", "X") != "X":
            return
        start, time = _number(event.get("ts"), MOST_US), _number(event.get("dur"), MOST_US)
        name, args = event.get("name"), event.get("args")
        if start is None or time is None or time < 0 or not isinstance(name, str):
            self.broken += 1
            return
        self._sort(event.get("cat"), name, start, time, args if isinstance(args, dict) else {}, event.get("tid"))

    def _sort(self, category: Any, name: str, start: float, time: float, args: Mapping[str, Any], tid: Any) -> None:
        if category in GPU:
            self._limit(self.kernels, MOST_KERNELS, "kernels")
            external, correlation = (
                _whole(args.get("External id", args.get("external id"))),
                _whole(args.get("correlation")),
            )
            call = self._call(args)
            stream, device = _whole(args["stream"] if "stream" in args else _last(tid)), _whole(args.get("device"), 0)
            self.kernels.add(start, time, stream, device, self._name(name), call, external, correlation)
        elif category in LAUNCHES:
            correlation = _whole(args.get("correlation"))
            if correlation >= 0:
                self._limit(self.launches, MOST_HOST_EVENTS, "launches")
                self.launches.add(start, time, correlation)
        elif category in OPS:
            external = _whole(args.get("External id", args.get("external id")))
            call = self._call(args)
            if call >= 0:
                self.host_calls.add(start, time, call)
            elif name.startswith(PREFIX) and (plain := called(name, args)) is not None:
                self.dispatched.add(start, time, self.plain_calls.of(plain))
            if external >= 0:
                self._limit(self.ops, MOST_HOST_EVENTS, "ops")
                product = product_of(name, args)
                number = -1 if product is None else self.sizes.of(product)
                self.ops.add(start, time, external, self._name(named(name, args)), call, number)
        elif category in MARKS:
            self._limit(self.marks, MOST_HOST_EVENTS, "marks")
            self.marks.add(start, time, self._name(name), int(category == GPU_MARKS))

    def _limit(self, columns: _Columns, most: int, what: str) -> None:
        if len(columns) >= most:
            raise TraceFault(self.path, f"has more than {most:,} {what}", "profile fewer steps")

    def _name(self, name: str) -> int:
        return self.names.of(name[:MOST_NAME])

    def _call(self, args: Mapping[str, Any]) -> int:
        found = call_of(args)
        return -1 if found is None else self.calls.of(found)

    # -- the whole -------------------------------------------------------------------------------

    def trace(self) -> RankTrace:
        if not self.calls.number:
            self.host_calls, self.calls = self.dispatched, self.plain_calls  # a library's metadata know more
        info = self.stream.fields.get("distributedInfo")
        info = info if isinstance(info, dict) else {}
        stated = _whole(info.get("rank"))
        rank = stated if stated >= 0 else rank_of_name(self.path.name)
        origin_us = min((columns.start[0] for columns in self._sorted() if len(columns)), default=0.0)
        base = self.stream.fields.get("baseTimeNanoseconds")
        origin_ns = (base if isinstance(base, int) else 0) + round(origin_us * 1000)
        notes = (f"{self.broken:,} events without time or name were left out",) if self.broken else ()
        names = tuple(self.names.number)
        calls: tuple[Call, ...] = tuple(self.calls.number)
        kernels, found = self._kernels(origin_us, names, calls)
        marks = [np.asarray(column) for column in self.marks.whole] or [np.zeros(0)] * 2
        about = self.stream.fields.get(METADATA)
        host = [np.asarray(column) for column in self.host_calls.whole] or [np.zeros(0)]
        return RankTrace(
            self.path, rank, max(0, _whole(info.get("world_size"), 0)), origin_ns, self._devices(), self.events, names, found,
            calls, kernels,
            Marks(*_times(self.marks, origin_us), marks[0].astype(np.int32), marks[1].astype(bool)),
            HostCalls(*_times(self.host_calls, origin_us), host[0].astype(np.int32)), notes,
            about if isinstance(about, dict) else {}, self.products,
        )  # fmt: skip

    def _sorted(self) -> list[_Columns]:
        """Every sort of events in the order in which they began."""
        every = [self.kernels, self.marks, self.host_calls, self.ops, self.launches]
        for columns in every:
            start = np.asarray(columns.start)
            if len(start) and (np.diff(start) < 0).any():
                order = np.argsort(start, kind="stable")
                columns.start, columns.time = (
                    array("d", np.asarray(c)[order].tobytes()) for c in (columns.start, columns.time)
                )
                columns.whole = tuple(array("q", np.asarray(c)[order].tobytes()) for c in columns.whole)
        return every

    def _devices(self) -> tuple[str, ...]:
        found = self.stream.fields.get("deviceProperties")
        listed = found if isinstance(found, list) else []
        return tuple(str(one.get("name", ""))[:100] for one in listed[:1024] if isinstance(one, dict))

    def _kernels(
        self, origin_us: float, names: tuple[str, ...], calls: tuple[Call, ...]
    ) -> tuple[Kernels, tuple[KernelClass, ...]]:
        start, time = _times(self.kernels, origin_us)
        whole = [np.asarray(column) for column in self.kernels.whole] or [np.zeros(0, np.int64)] * 6
        stream, device, name, call, external, correlation = whole
        launch = _found_in(self.launches, 0, correlation)
        launched = np.full(len(start), np.nan)
        launched[launch >= 0] = (np.asarray(self.launches.start)[launch[launch >= 0]] - origin_us) / 1e6
        by_op = _found_in(self.ops, 0, external)
        op = np.full(len(start), -1)
        if (by_op >= 0).any():
            op[by_op >= 0] = np.asarray(self.ops.whole[1])[by_op[by_op >= 0]]
            inherited = np.asarray(self.ops.whole[2])[np.maximum(by_op, 0)]
            call = np.where((call < 0) & (by_op >= 0), inherited, call)
            self.products = _products(
                np.asarray(self.ops.whole[3]), by_op, np.asarray(self.kernels.time), tuple(self.sizes.number)
            )
        of, found = _classified(name, op, call, names, calls)
        of, found = of_streams(of, device, stream, found)
        of = of_experts(of, device, stream, found)
        call = np.where(np.array([one.part == EXCHANGE for one in found] or [False])[of], call, -1)
        return Kernels(
            start, time, launched, stream, *(c.astype(np.int32) for c in (device, name, op, of, call))
        ), found


def _products(product: Any, by_op: Any, time_us: Any, sizes: tuple[Product, ...]) -> Products:
    """Kernels of one op are added up: a product may take several. `product`: of each op; `by_op`: the op of each kernel."""
    mine = (by_op >= 0) & (product[np.maximum(by_op, 0)] >= 0)
    ops, each = np.unique(by_op[mine], return_inverse=True)
    return Products(
        sizes, product[ops].astype(np.int32), np.bincount(each, weights=time_us[mine], minlength=len(ops)) / 1e6
    )


def _times(columns: _Columns, origin_us: float) -> tuple[Any, Any]:
    return (np.asarray(columns.start) - origin_us) / 1e6, np.asarray(columns.time) / 1e6


def _found_in(columns: _Columns, key: int, wanted: Any) -> Any:
    """For each number the last row of a table that has it, or -1. Numbers below 1 are nobody's."""
    out = np.full(len(wanted), -1)
    if not len(columns) or not len(wanted):
        return out
    have = np.asarray(columns.whole[key])
    order = np.argsort(have, kind="stable")
    at = np.searchsorted(have[order], wanted, side="right") - 1
    hit = (at >= 0) & (wanted > 0)
    hit[hit] = have[order[at[hit]]] == wanted[hit]
    out[hit] = order[at[hit]]
    return out


def _classified(
    name: Any, op: Any, call: Any, names: tuple[str, ...], calls: tuple[Call, ...]
) -> tuple[Any, tuple[KernelClass, ...]]:
    """(class of each kernel by number, classes)."""
    table = classes()
    found: dict[KernelClass, int] = {}
    kinds = {kind: at for at, kind in enumerate(dict.fromkeys(one.kind for one in calls))}
    words = [*kinds]
    kind = np.array([kinds[one.kind] for one in calls] or [0])[np.maximum(call, 0)]
    kind = np.where(call >= 0, kind, -1)
    rows, each = np.unique(np.stack([name, op, kind]), axis=1, return_inverse=True)
    numbers = []
    for n, o, k in rows.T:
        one = table.of(names[n], names[o] if o >= 0 else "", words[k] if k >= 0 else "")
        numbers.append(found.setdefault(one, len(found)))
    return np.array(numbers or [0])[each.reshape(-1)], tuple(found)


def rank_of_name(name: str) -> int | None:
    """Of a file: `rank0.pt.trace.json.gz`, `...-TP-3.trace.json.gz`."""
    found = RANK.search(name) or TP_RANK.search(name)
    return int(found[1]) if found else None
