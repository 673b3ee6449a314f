"""One source read with many settings: hardware and model are read anew only where a constant that they name has another value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..base.diagnostics import Collector
from ..base.files import Reach
from ..base.frozen import field, mutable
from ..base.source import Source
from ..base.syntax import ast
from ..spec.hardware import Hardware
from ..spec.model import AttrValue, Model
from ..spec.spec import Spec
from .elaborate import Elaborator
from .params import Constants
from .statements import Statements

T = TypeVar("T")


class Watched(Mapping[str, AttrValue]):
    """Values of constants, which remembers those that were asked for."""

    def __init__(self, values: Mapping[str, AttrValue]) -> None:
        self.values_, self.asked = values, set[str]()

    def __getitem__(self, name: str) -> AttrValue:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        self.asked.update(self.values_)
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def at(self, values: Mapping[str, AttrValue]) -> Watched:
        """Other values, of which the same is remembered."""
        found = Watched(values)
        found.asked = self.asked
        return found

    def same(self, others: Mapping[str, AttrValue]) -> bool:
        """Whether all that was asked for has the same value there."""
        return all(self.values_.get(name) == others.get(name) for name in self.asked)


@mutable
class Once(Elaborator):
    """An elaborator that keeps what it read of hardware and model. `watched`: the constants as these saw them."""

    watched: Watched = field(default_factory=lambda: Watched({}))
    known_hardware: dict[int, Hardware | None] = field(default_factory=dict)
    known_models: dict[int, Model | None] = field(default_factory=dict)

    def hardware(self, section: ast.Section, base: Path | None) -> Hardware | None:
        return self._once(self.known_hardware, Elaborator.hardware, section, base)

    def model(self, section: ast.Section, base: Path | None) -> Model | None:
        return self._once(self.known_models, Elaborator.model, section, base)

    def _once(
        self,
        known: dict[int, T | None],
        read: Callable[[Elaborator, ast.Section, Path | None], T | None],
        section: ast.Section,
        base: Path | None,
    ) -> T | None:
        """Sections are of one tree, which is kept as long as these are."""
        if id(section) not in known:
            own = self.values
            self.values = self.presets.values = self.watched
            try:
                known[id(section)] = read(self, section, base)
            finally:
                self.values = self.presets.values = own
        return known[id(section)]


class First(NamedTuple):
    """What was read with some settings. `failed`: names that mean nothing before sections are read; `steps` of its expressions."""

    once: Once
    file: ast.File
    failed: frozenset[str]
    steps: int


MOST_KEPT = 16
"""Hardware and models that are kept at once."""


class Rereading:
    """A source, with the files that it names as they are when they are first read."""

    def __init__(self, source: Source, base_dir: Path | None, allow_import: Sequence[str | Path]) -> None:
        self.source = source
        self.reach = Reach.of(None if base_dir is None else base_dir / "-.moe", allow_import)
        self.kept: list[First] = []

    def spec(self, settings: Mapping[str, str]) -> Spec:
        """The spec with some settings. Raises SpecError with every error, and reports no warnings."""
        for first in self.kept:
            once, file, failed, steps = first
            statements, out = once.statements, Collector(steps=steps)
            statements.out, statements.failed = out, set(failed)
            constants = Constants(statements.lets, out, statements.failed)
            constants.read(settings)
            out.check()
            if once.watched.same(constants.values):
                break
        else:
            return self._read(settings)
        again = Once(
            statements,
            constants.values,
            constants.domains,
            watched=once.watched,
            known_hardware=once.known_hardware,
            known_models=once.known_models,
        )
        again.presets.config = once.presets.config
        spec = again.spec(file)
        out.check()
        assert spec is not None
        return spec

    def _read(self, settings: Mapping[str, str]) -> Spec:
        from ..base.syntax.parse import parse

        out = Collector()
        file = parse(self.source, out)
        statements = Statements(out, self.reach)
        base = self.reach.base
        statements.gather(file, base, (Path(os.path.realpath(base / Path(file.span.source.name).name)),))
        failed = frozenset(statements.failed)
        constants = Constants(statements.lets, out, statements.failed)
        constants.read(settings)
        once = Once(statements, constants.values, constants.domains, watched=Watched(constants.values))
        spec = once.spec(file)
        out.check()
        assert spec is not None
        self.kept.insert(0, First(once, file, failed, out.steps))
        del self.kept[MOST_KEPT:]
        return spec
