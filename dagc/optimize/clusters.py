"""Dask and Ray clusters that work for a sweep or a search: how they are reached, and what is said when they are not there or go away."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
TRIES = 3
"""How often a task may take a worker of its own with it."""
CONNECT_S = 30.0
"""How long a cluster may take to answer, and then to have a worker."""
ADDRESS = re.compile(r"[^/\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class ClusterError(Exception):
    """A cluster that cannot be reached, has no workers, cannot do the work, or went away."""


class Submit(Protocol):
    """Gives tasks to the workers of a cluster: their results in order, each as soon as it and those before it are there; None where a task took
    its workers with it. Raises ClusterError."""

    def __call__(self, run: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R | None]: ...


@contextmanager
def cluster(url: str) -> Iterator[Submit]:
    """`dask://HOST:PORT` of a scheduler, `ray://HOST:PORT` of a client server. Raises ClusterError."""
    scheme, _, address = url.partition("://")
    with OPEN[scheme](address) as submit:
        yield submit


@contextmanager
def _dask(address: str) -> Iterator[Submit]:
    """A Dask scheduler gives the tasks of a lost worker to another one."""
    import asyncio
    from concurrent.futures import CancelledError

    from distributed import Client, KilledWorker

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is wrong is raised, and said in one line
    made: list[Any] = []

    def connect() -> None:
        try:
            made.append(Client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=False))  # type: ignore[no-untyped-call, unused-ignore]
        except Exception as error:  # of this thread: the one that waits for it tells of it
            made.append(error)

    # A server that answers and is none of Dask keeps the client waiting without an end.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(1.5 * CONNECT_S)
    if not made or isinstance(made[0], Exception):
        reason = made[0] if made else "what answers there is no scheduler"
        raise ClusterError(f"no scheduler answers at {address}: {reason}")
    with made[0] as client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise ClusterError(f"the scheduler at {address} has no workers") from None

        def submit(run: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R | None]:
            try:
                for future in client.map(run, list(tasks), pure=False, retries=0):
                    try:
                        yield future.result()
                    except KilledWorker:
                        yield None
            except (CancelledError, asyncio.CancelledError, OSError) as error:
                raise ClusterError(f"the scheduler at {address} went away: {type(error).__name__}") from None
            except ImportError as error:
                raise ClusterError(f"a worker of {address} cannot run dagc: {error}") from None

        yield submit


@contextmanager
def _ray(address: str) -> Iterator[Submit]:
    """A Ray cluster does the tasks of a lost worker again."""
    import ray

    try:
        session = ray.init(f"ray://{address}", log_to_driver=False)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray client server answers at {address}: {error}") from None

    def submit(run: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R | None]:
        remote = ray.remote(max_retries=TRIES - 1)(run)
        try:
            for future in [remote.remote(task) for task in tasks]:
                try:
                    yield ray.get(future)
                except ray.exceptions.WorkerCrashedError:
                    yield None
        except ConnectionError as error:
            raise ClusterError(f"the cluster at {address} went away: {error}") from None
        except ray.exceptions.RaySystemError as error:
            raise ClusterError(f"the cluster at {address} failed: {error}") from None
        except (ImportError, ray.exceptions.RuntimeEnvSetupError) as error:
            raise ClusterError(f"a worker of {address} cannot run dagc: {error}") from None

    with session:
        yield submit


OPEN: Mapping[str, Callable[[str], Any]] = {"dask": _dask, "ray": _ray}
PACKAGES: Mapping[str, str] = {"dask": "distributed", "ray": "ray"}
"""Scheme of `--on` -> the package that it needs (an extra of the scheme's name)."""
