"""A cluster of Dask in this process whose workers are forks of one that has Dask and dagc already: to import them takes ten times as long as the points
that they are given."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PRELOADED = ["distributed.nanny", "distributed.worker", "dagc.optimize.points", "dagc.pipeline.compile"]


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """Workers are started again when they end."""
    distributed = pytest.importorskip("distributed", reason="Dask is an extra: pip install -e '.[dask]'")
    import dask
    from distributed import utils

    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
    ):
        patch.setattr(utils, "_forkserver_preload_set", True, raising=False)  # its own list has what dagc never imports
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        with distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as own:
            yield own
