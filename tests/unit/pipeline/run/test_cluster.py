import pytest

from pipeline.errors import SchedulerUnavailable
from pipeline.run.cluster import LocalWorkers, open_client, worker_environment


def test_workers_do_not_import_from_where_they_start():
    environment = worker_environment(3)
    assert environment["PYTHONSAFEPATH"] == "1"
    assert {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}


def test_an_address_without_a_scheme_that_dask_knows_is_no_scheduler():
    local = LocalWorkers(1, 1, 2**30)
    with pytest.raises(SchedulerUnavailable, match="nonsense://x"), open_client("nonsense://x", local):
        pass
