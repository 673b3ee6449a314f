"""Fits every part of the tables of some folders: each by itself, then those of few rows over a sibling. Needs scipy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..constants import Device, Entry
from ..families import FAMILIES
from ..family import Row
from . import tables
from .fit import Part, fit_part
from .siblings import over_siblings
from .tables import AnyFamily, Key


@dataclass(slots=True)
class Fit:
    """Every part of the tables; `absent`: tables that are not there."""

    parts: list[Part] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def entries(self) -> Iterator[tuple[AnyFamily, Entry[Any]]]:
        """Of every part with enough rows."""
        return ((part.family, part.entry) for part in self.parts if part.entry is not None)


class UnknownDevice(KeyError):
    """A table has a GPU whose datasheet peaks are not known."""


Rows = dict[Key, list[Row]]


def fit_folders(
    folders: Sequence[Path],
    devices: Mapping[str, Device],
    done: Callable[[Part], None] = lambda part: None,
    wanted: Callable[[Key], bool] = lambda key: True,
    jobs: int = 1,
) -> Fit:
    """Fits every part of the tables in some folders for which `wanted`, calling `done` after each, in `jobs` processes. A
    part may lean on one of another GPU or engine only if that is wanted too. A row without a backend is of no engine.

    Raises UnknownDevice(file, gpu), and tables.TableError when a table is not what its columns say.
    """
    result = Fit()
    tasks: list[Rows] = []
    for family in FAMILIES.values():
        found, absent = tables.groups(family, folders)
        result.absent += absent
        kernels: dict[tuple[str, str], Rows] = defaultdict(dict)
        for key, rows in sorted(found.items()):
            if wanted(key):
                if key.gpu not in devices:
                    raise UnknownDevice(family.file, key.gpu)
                kernels[family.kernels(key.engine, key.variant)][key] = rows
        tasks += kernels.values()
    for part in _fitted(tasks, devices, jobs):
        result.parts.append(part)
        done(part)
    return result


def _fitted(tasks: Sequence[Rows], devices: Mapping[str, Device], jobs: int) -> Iterable[Part]:
    if jobs == 1:
        for task in tasks:
            yield from _fit(task, devices)
        return
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(_numbers_of, task, devices) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            for key, numbers in future.result():
                yield Part(key, FAMILIES[key.family], task[key], *numbers)


def _fit(task: Rows, devices: Mapping[str, Device]) -> list[Part]:
    """The same kernels on every GPU, and of every engine that calls them."""
    return over_siblings([fit_part(key, rows, devices[key.gpu]) for key, rows in task.items()], devices)


def _numbers_of(task: Rows, devices: Mapping[str, Device]) -> list[tuple[Key, tuple[Any, ...]]]:
    """The record of a family does not travel between processes."""
    parts = _fit(task, devices)
    return [(each.key, (each.entry, each.measured_s, each.by_row, each.by_shape, each.blind)) for each in parts]
