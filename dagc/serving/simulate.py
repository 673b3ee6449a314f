"""The simulation of a setup under a load."""

from __future__ import annotations

from itertools import takewhile

from .records import Load, Outcome, Served, Setup
from .router import Router
from .rules import refuse
from .worker import Worker


def simulate(setup: Setup, load: Load, steps_kept: int = 0) -> Outcome:
    """Serves a load; keeps the first `steps_kept` stretches of steps of each worker for a timeline. Raises `CannotServe` for a request that can
    never be served; of a list, before anything is simulated."""
    if len(setup.workers) == 1 and setup.workers[0].count == 1 and not load.clients and setup.switch is None:
        return _one(setup, load, steps_kept)
    from .pools import Run

    run = Run(setup, load, steps_kept)
    if isinstance(load.requests, (list, tuple)):
        run.refuse(load.requests)
    run.run()
    return run.outcome()


def _one(setup: Setup, load: Load, steps_kept: int) -> Outcome:
    """A worker alone, whose arrivals depend on nothing: it reads them itself."""
    (workers,) = setup.workers
    served = Served()
    worker = Worker(workers.engine, served=served, steps_kept=steps_kept)
    if workers.engine.ranks > 1 and (setup.route != "round_robin" or workers.engine.queue is not None):
        router = Router(setup.route, [worker], workers.engine.queue)
        worker.route = lambda _, request: None if (place := router.pick(request)) is None else place.rank
    requests = load.requests
    if isinstance(requests, (list, tuple)):
        refuse(worker.rules, requests)
    if load.until_s is not None:
        last_s = load.until_s
        requests = takewhile(lambda request: request.arrival_s <= last_s, requests)
    worker.feed(requests)
    worker.run()
    return outcome(worker, served, workers.role)


def outcome(worker: Worker, served: Served, role: str) -> Outcome:
    """What came of a run of one worker."""
    series = {name if name == "time_s" else f"{role}.{name}": column for name, column in worker.series.items()}
    integrals = {f"{role}.{name}": value for name, value in worker.integrals.items()}
    most = {f"{role}.{name}": value for name, value in worker.most.items()}
    loads = {role: tuple(rank.tokens for rank in worker.ranks)}
    return Outcome(
        served, worker.now, worker.counts, integrals, worker.gaps, series, most, loads, tuple(worker.stretches)
    )
