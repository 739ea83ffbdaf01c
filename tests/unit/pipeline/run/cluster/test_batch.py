import gc
import socket
import sys

import pytest

from pipeline.config.clusters import SlurmCluster
from pipeline.errors import ConfigError
from pipeline.run.cluster.batch import batch_cluster, load_job_class, require_commands
from pipeline.run.cluster.jobs import SYSTEMS
from pipeline.run.cluster.settings import WorkerNeeds


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Make a PATH that holds the commands that are asked for, and nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(*names):
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)

    return make


def section(**changes):
    return SlurmCluster.model_validate({"kind": "slurm", "cpu_workers": {"jobs": 1}, **changes})


@pytest.mark.parametrize("kind", SYSTEMS)
def test_dask_jobqueue_that_is_not_installed_names_the_extra(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, SYSTEMS[kind].module, None)
    with pytest.raises(ConfigError, match=r'dask-jobqueue is not installed.*pip install "sam4em\[cluster\]"'):
        load_job_class(SYSTEMS[kind])


def test_each_command_that_is_missing_is_named(commands):
    with pytest.raises(ConfigError, match="no `sbatch` on the PATH"):
        require_commands(SYSTEMS["slurm"])
    commands("sbatch")
    with pytest.raises(ConfigError, match="no `squeue` on the PATH"):
        require_commands(SYSTEMS["slurm"])
    commands("squeue")
    require_commands(SYSTEMS["slurm"])


def test_an_interface_that_is_not_there(commands, tmp_path):
    commands("sbatch", "squeue")
    cluster = section(interface="no-such-interface", log_directory=str(tmp_path / "logs"))
    with (
        pytest.raises(ConfigError, match=r"not a valid network interface.*mend cluster\.interface \(no-such"),
        batch_cluster(cluster, WorkerNeeds(2**30)),
    ):
        pass


# Dask leaves its own socket to the garbage collector when it cannot listen.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken(commands, tmp_path):
    commands("sbatch", "squeue")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cluster = section(interface="lo", scheduler_port=port, log_directory=str(tmp_path / "logs"))
        with (
            pytest.raises(ConfigError, match=rf"already in use.*cluster\.scheduler_port \({port}\)"),
            batch_cluster(cluster, WorkerNeeds(2**30)),
        ):
            pass
    gc.collect()
