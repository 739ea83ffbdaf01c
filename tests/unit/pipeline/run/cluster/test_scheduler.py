import json

import pytest

from pipeline.config.clusters import SchedulerCluster
from pipeline.errors import ConfigError, SchedulerUnavailable
from pipeline.run.cluster.scheduler import read_scheduler_file, remote_cluster


def test_an_address_without_a_scheme_that_dask_knows_is_no_scheduler():
    section = SchedulerCluster(kind="scheduler", address="nonsense://x")
    with pytest.raises(SchedulerUnavailable, match="nonsense://x"), remote_cluster(section):
        pass


def test_a_scheduler_file(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": "tcp://10.0.0.1:8786", "type": "Scheduler"}))
    assert read_scheduler_file(str(path)) == "tcp://10.0.0.1:8786"


@pytest.mark.parametrize("text", [None, "", "{}", "[1]"])
def test_a_scheduler_file_that_is_none(tmp_path, text):
    path = tmp_path / "scheduler.json"
    if text is not None:
        path.write_text(text)
    section = SchedulerCluster(kind="scheduler", file=str(path))
    with pytest.raises(ConfigError, match=r"cluster\.file .*scheduler\.json holds no address"), remote_cluster(section):
        pass
