"""`dagc.sweep`: a spec under every combination of values of its params."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..base.frozen import record
from .asked_specs import Setting, setting_text, setting_texts, source_of

if TYPE_CHECKING:
    from ..optimize.point import SweepRow
    from .asked_specs import Settings


@record
class Sweep(Sequence["SweepRow"]):
    """The points, in the order of the combinations, the last param varying fastest."""

    points: tuple[SweepRow, ...]

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, at: int) -> SweepRow: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[SweepRow, ...]: ...
    def __getitem__(self, at: int | slice) -> SweepRow | tuple[SweepRow, ...]:
        return self.points[at]

    def __iter__(self) -> Iterator[SweepRow]:
        return iter(self.points)

    @property
    def passed(self) -> tuple[SweepRow, ...]:
        """Points that keep every requirement and fit."""
        return tuple(row for row in self.points if row.passed)

    def rows(self) -> list[dict[str, Any]]:
        """A row per point: its settings, its verdict, and every metric in SI units (None where a point does not compile)."""
        names = dict.fromkeys(name for row in self.points for name in row.metrics)
        return [
            {
                **row.settings,
                "passed": row.passed,
                "fits": row.fits,
                "why": "; ".join([*row.errors, *row.failed]),
                **{name: row.metrics.get(name) for name in names},
            }
            for row in self.points
        ]

    def to_dataframe(self, *, library: str | None = None) -> Any:
        """The rows as a data frame of pandas or polars. ImportError where neither is installed."""
        from .data_frames import data_frame

        return data_frame(self.rows(), library)

    def __repr__(self) -> str:
        wrong = sum(bool(row.errors) for row in self.points)
        return f"<Sweep of {len(self)} points: {len(self.passed)} pass{f', {wrong} do not compile' if wrong else ''}>"


def sweep(
    spec_file: str | Path,
    over: Mapping[str, Sequence[Setting]] | None = None,
    *,
    metrics: Sequence[str] = (),
    settings: Settings | None = None,
    phases: Sequence[str] = (),
    workers: int | None = None,
    on: str = "",
    allow_import: Sequence[str | Path] = (),
) -> Sweep:
    """Compile a spec under every combination of `over` (name of a param -> its values; default: the domains that the spec declares), in
    `workers` processes (default: one per CPU, at most four; 1: in this one) or `on` a cluster (`dask://HOST:PORT`, `ray://HOST:PORT`).
    Servings that `metrics` name are simulated. Raises SpecError; a point that does not compile is a row with `errors`."""
    from ..base.diagnostics import Diagnostic, SpecError
    from ..optimize.asked_cluster import check_cluster
    from ..optimize.asked_points import tasks
    from ..optimize.clusters import ClusterError
    from ..optimize.points import sweep as swept
    from ..optimize.points import sweep_on

    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, not at least 1")
    source, base = source_of(spec_file, allow_import)
    domains = {name: [setting_text(value) for value in values] for name, values in (over or {}).items()}
    for name, values in domains.items():
        if not values:
            raise ValueError(f"over[{name!r}] has no values")
    points = tasks(source, base, domains, setting_texts(settings), phases, allow_import, metrics)
    check_cluster(on)
    try:
        return Sweep(tuple(sweep_on(on, points) if on else swept(points, workers=workers)))
    except ClusterError as error:
        raise SpecError([Diagnostic("E16", str(error))]) from None
