"""A Slurm of its own on this machine: munged, slurmctld and slurmd from a temporary folder, without systemd."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
# Debian installs daemons where a user's PATH does not look.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
START_S = 60.0
CONFIG = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge_socket}
CryptoType=crypto/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SchedulerTimeSlice=5
KillWait=5
InactiveLimit=0
MinJobAge=30
StateSaveLocation={state}
SlurmdSpoolDir={spool}
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={logs}/slurmctld.log
SlurmdLogFile={logs}/slurmd.log
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=gpu Nodes={host} MaxTime=01:00:00 State=UP
PartitionName=cpu Nodes={host} Default=YES MaxTime=01:00:00 State=UP
"""


class SlurmMissing(Exception):
    """This machine cannot run a Slurm; the text says why."""


def find_reason():
    """Tell why no Slurm can be started here, or None."""
    missing = [name for name in DAEMONS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "munged and slurmd are started as root, this is another user"
    return None


@contextmanager
def run_slurm(folder, cpus=8):
    """Start the daemons; gives the environment that clients need.

    Args:
        folder: a folder that every user may pass through: munged runs as user munge.
        cpus: CPUs that the node claims to have; the jobs of a test share those that are there.
    """
    reason = find_reason()
    if reason:
        raise SlurmMissing(reason)
    folder = Path(folder)
    with ExitStack() as stack:
        socket_path = start_munge(folder / "munge", stack)
        config = write_config(folder, socket_path, cpus)
        environment = {**os.environ, "SLURM_CONF": str(config), "PATH": SEARCH_PATH}
        for daemon in ("slurmctld", "slurmd"):
            start(stack, [daemon, "-D", "-f", str(config)], folder / "logs" / f"{daemon}.out", environment)
        wait_for_node(environment, folder / "logs")
        yield {"SLURM_CONF": str(config), "PATH": SEARCH_PATH}
        subprocess.run(["scancel", "--full", "--user=root"], env=environment, check=False, capture_output=True)
        wait_until(lambda: not queue(environment), "jobs that were cancelled are still in the queue")


def queue(environment=None, fmt="%A"):
    command = ["squeue", "--noheader", f"--format={fmt}"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return found.stdout.split()


def start_munge(folder, stack):
    """Start munged with a key of its own; gives its socket."""
    for part in (folder, folder / "run", folder / "log"):
        part.mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    for path in (folder, folder / "run", folder / "log", key):
        shutil.chown(path, "munge", "munge")
    key.chmod(0o400)
    (folder / "run").chmod(0o755)
    (folder / "log").chmod(0o700)
    folder.chmod(0o755)
    socket_path = folder / "run" / "munge.socket"
    command = ["munged", "--foreground", f"--socket={socket_path}", f"--key-file={key}"]
    command += [f"--pid-file={folder}/run/munged.pid", f"--log-file={folder}/log/munged.log"]
    command += [f"--seed-file={folder}/log/munged.seed"]
    start(stack, command, folder.parent / "munged.out", None, user="munge")
    wait_until(socket_path.exists, "munged made no socket")
    return socket_path


def write_config(folder, munge_socket, cpus):
    for part in ("state", "spool", "logs"):
        (folder / part).mkdir()
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=free_port(),
            node_port=free_port(),
            munge_socket=munge_socket,
            state=folder / "state",
            spool=folder / "spool",
            logs=folder / "logs",
            cpus=cpus,
            memory_mb=memory_mb // 2,
        )
    )
    return config


def start(stack, command, output, environment, user=None):
    file = stack.enter_context(output.open("wb"))
    binary = shutil.which(command[0], path=SEARCH_PATH)
    process = subprocess.Popen([binary, *command[1:]], stdout=file, stderr=file, env=environment, user=user)
    stack.callback(stop, process)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_node(environment, logs):
    def is_idle():
        command = ["sinfo", "--noheader", "--format=%T"]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return set(found.stdout.split()) == {"idle"}

    try:
        wait_until(is_idle, "the node did not become idle")
    except TimeoutError as error:
        told = "\n".join(path.read_text()[-2000:] for path in sorted(logs.iterdir()))
        raise TimeoutError(f"{error}; {told}") from error


def wait_until(condition, what, limit_s=START_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {limit_s:.0f} s")
        time.sleep(0.1)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
