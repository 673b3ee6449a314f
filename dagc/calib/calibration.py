"""A calibration of a GPU: the tables of every engine, and the nearest of them where an engine has none.

Nearest: the same engine on another GPU, rates scaled by the datasheets, or another engine on the same GPU, whichever misses less
in this family; then another engine on another GPU; then another variant that the family allows in its place. How far such
substitutes are off is measured by the fit (`nearest.json`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from ..base.files import stamp
from ..base.frozen import replace
from .calibration_file import CalibrationFile, read, shipped
from .constants import CalibrationError, Device, Entry, FitError
from .family import COMMON, ENGINES, Family
from .known_gpus import available, folder

C = TypeVar("C")
NEAREST = "nearest.json"
UNKNOWN = FitError(0.3, 0.8, 0)
"""Of a substitute in a family for which none could be measured."""


class Calibration:
    """Fitted constants of one GPU, of every engine. A family may lack a variant, or all, where nobody measured it."""

    def __init__(self, gpu: str, own: CalibrationFile | None = None) -> None:
        """`own`: the user's file; its entries serve any engine. Else the files of the library are read as they are needed."""
        self.gpu = gpu
        self._own = own
        self._found: dict[tuple[str, str, tuple[str, ...]], Entry[Any] | None] = {}

    @property
    def device(self) -> Device:
        """Datasheet peaks."""
        return self._own.head.device if self._own is not None else nearest().devices[self.gpu]

    @property
    def source(self) -> str:
        """Where the tables come from, and their licence."""
        return self._own.head.source if self._own is not None else nearest().source

    def of(self, family: Family[C], engine: str = "") -> Mapping[str, Entry[C]]:
        """Entries of an engine and those of none, by variant; without an engine those of none alone."""
        if self._own is not None:
            return self._own.of(family)
        found = dict(shipped(family, self.gpu, COMMON))
        return {**found, **shipped(family, self.gpu, engine)} if engine else found

    def find(self, family: Family[C], variants: str | tuple[str, ...], engine: str) -> Entry[C] | None:
        """The entry of the first of the variants that somebody measured, else the nearest, or None."""
        wanted = (variants,) if isinstance(variants, str) else variants
        key = family.name, engine, wanted
        if key not in self._found:
            self._found[key] = next(self._nearest(family, wanted, engine), None)
        return self._found[key]

    def asked(self) -> Iterator[tuple[str, str, Entry[Any]]]:
        """(engine, family, entry) of what `find` was asked for and found."""
        return ((engine, family, entry) for (family, engine, _), entry in self._found.items() if entry is not None)

    def _nearest(self, family: Family[C], wanted: tuple[str, ...], engine: str) -> Iterator[Entry[C]]:
        """Entries from the nearest on."""
        yield from (entry for variant in wanted if (entry := self._measured(family, variant, engine)) is not None)
        yield from self._elsewhere(family, wanted, engine)
        for variant in wanted:
            for other in family.substitutes(variant):
                here = self._measured(family, other, engine)
                near = here or next(self._elsewhere(family, (other,), engine), None)
                made = near and moved(family, near, self.device, variant)
                if made is not None:
                    error = nearest().error(family.name, "variant")
                    yield _substitute(made, error, f"{variant} of {_place(engine, self.gpu)}")

    def _measured(self, family: Family[C], variant: str, engine: str) -> Entry[C] | None:
        if self._own is not None:
            return self._own.of(family).get(variant)
        return shipped(family, self.gpu, engine).get(variant) or shipped(family, self.gpu, COMMON).get(variant)

    def _elsewhere(self, family: Family[C], wanted: tuple[str, ...], engine: str) -> Iterator[Entry[C]]:
        if self._own is not None:
            return
        others = tuple(other for other in ENGINES if other != engine) if engine in ENGINES else ()
        near, error = nearest().gpus_near(self.gpu), nearest().error
        steps: dict[str, list[tuple[str, str]]] = {
            "gpu": [(gpu, kernels) for gpu in near for kernels in (engine, COMMON)],
            "engine": [(self.gpu, other) for other in others],
        }
        # The nearer of the two is the one that missed less where both could be compared.
        order = sorted(steps, key=lambda step: error(family.name, step).median)
        far = [(gpu, other) for gpu in near for other in others]
        for gpu, kernels in (*(place for step in order for place in steps[step]), *far):
            for entry in (shipped(family, gpu, kernels).get(variant) for variant in wanted):
                there = entry and moved(family, entry, self.device, entry.variant)
                if there is not None:
                    for step, same in (("gpu", gpu == self.gpu), ("engine", kernels not in others)):
                        there = (
                            there if same else _substitute(there, error(family.name, step), _place(engine, self.gpu))
                        )
                    yield there


def _place(engine: str, gpu: str) -> str:
    return f"{engine} on {gpu}"


def _substitute(entry: Entry[C], error: FitError, missing: str) -> Entry[C]:
    own = entry.error
    wider = FitError(max(own.median, error.median), max(own.p90, error.p90), own.rows, own.bias, own.unseen)
    return replace(entry, error=wider, instead_of=missing)


def moved(family: Family[C], entry: Entry[C], device: Device, variant: str) -> Entry[C] | None:
    """The entry for another GPU or variant: constants scale as their greatest values do, and what is known of the new
    place replaces what was of the old. None where the GPU lacks the dtype."""
    try:
        there, here = family.bounds(device, variant), family.bounds(entry.device, entry.variant)
        facts = family.facts(device, variant)
    except KeyError:
        return None
    c: Any = entry.constants
    scaled = {name: getattr(c, name) * there[name][2] / here[name][2] for name in there if name in here}
    guessed = {name: there[name][0] for name in there if name not in here}
    return replace(entry, constants=replace(c, **{**scaled, **guessed, **facts}), device=device, variant=variant)


# -- the library ---------------------------------------------------------------------------------


def engines_of(gpu: str) -> list[str]:
    """Engines of which kernels were timed on a GPU."""
    there = {entry.name for entry in (folder() / gpu).iterdir() if entry.is_dir()}
    return [engine for engine in ENGINES if engine in there]


class Nearest:
    """What the fit measured of substitutes, and the datasheets by which GPUs are near."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.source: str = body["source"]
        self.devices = {gpu: Device(**peaks) for gpu, peaks in body["devices"].items()}
        self._order: Mapping[str, tuple[str, ...]] = {gpu: tuple(order) for gpu, order in body["near"].items()}
        self._errors: Mapping[str, Mapping[str, Mapping[str, float]]] = body["errors"]

    def gpus_near(self, gpu: str) -> tuple[str, ...]:
        """Other GPUs, the nearest first."""
        return self._order.get(gpu, ())

    def error(self, family: str, step: str) -> FitError:
        """Of substitutes, over the rows of all places where one could be compared; `step`: engine, gpu or
        variant."""
        found = self._errors.get(family, {}).get(step)
        if found is None:
            return UNKNOWN
        return FitError(found["median"], found["p90"], int(found["rows"]), found["bias"])


@lru_cache(maxsize=1)
def nearest() -> Nearest:
    import json  # of a few kilobytes: importing orjson takes longer

    return Nearest(json.loads((folder() / NEAREST).read_bytes()))


def load(gpu: str) -> Calibration:
    """Calibration of a GPU, by its name in the library (`h100_sxm`), or from a file whose path ends in .json.

    Raises CalibrationError when there is no such file, or it is not well formed.
    """
    return _load_file(gpu, _stamp(gpu)) if gpu.endswith(".json") else _load_gpu(gpu)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        return stamp(path)
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from None


@lru_cache(maxsize=16)
def _load_file(path: str, as_of: tuple[int, ...]) -> Calibration:
    """`as_of`: a file that is written anew is read anew."""
    found = read(path)
    return Calibration(found.head.gpu, found)


@lru_cache(maxsize=16)
def _load_gpu(gpu: str) -> Calibration:
    if gpu not in available():
        raise CalibrationError(f"no calibration for {gpu}; available: {', '.join(available())}")
    return Calibration(gpu)
