"""The simulation of a setup under a load."""

from __future__ import annotations

from .records import Load, Outcome, Served, Setup
from .rules import refuse
from .worker import Worker


def simulate(setup: Setup, load: Load) -> Outcome:
    """Serves a load. Raises `CannotServe` for a request that can never be served; of a list, before anything is simulated."""
    (workers,) = setup.workers
    served = Served()
    worker = Worker(workers.engine, served=served)
    if isinstance(load.requests, (list, tuple)):
        refuse(worker.rules, load.requests)
    worker.feed(load.requests)
    worker.run()
    return outcome(worker, served, workers.role)


def outcome(worker: Worker, served: Served, role: str) -> Outcome:
    """What came of a run of one worker."""
    series = {name if name == "time_s" else f"{role}.{name}": column for name, column in worker.series.items()}
    integrals = {f"{role}.{name}": value for name, value in worker.integrals.items()}
    return Outcome(
        served,
        worker.now,
        worker.counts,
        integrals,
        worker.gaps,
        series,
        {f"{role}.{name}": value for name, value in worker.most.items()},
    )
