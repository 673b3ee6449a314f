"""The simulation of a setup under a load."""

from __future__ import annotations

from collections.abc import Iterable

from .records import Load, Outcome, Request, Served, Setup
from .rules import CannotServe
from .worker import Worker


def simulate(setup: Setup, load: Load) -> Outcome:
    """Serves a load. Raises `CannotServe` for a request that can never be served; of a list, before anything is simulated."""
    (workers,) = setup.workers
    served = Served()
    worker = Worker(workers.engine, served=served)
    if isinstance(load.requests, (list, tuple)):
        refuse(worker, load.requests)
    worker.feed(load.requests)
    worker.run()
    return outcome(worker, served, workers.role)


def refuse(worker: Worker, requests: Iterable[Request]) -> None:
    """Raises `CannotServe` for the first request that `worker` can never serve."""
    for index, request in enumerate(requests):
        why = worker.rules.refusal(request)
        if why is not None:
            raise CannotServe(f"request {index + 1}: {why}")


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
