"""Every error that sam4em raises on purpose, by whose turn it is to act.

    Sam4emError
    |-- UserError            exit 2   the command or the config must change
    |   |-- ConfigError               a key, a value, a combination of options
    |   |-- PlanError                 a block that will not fit, grids that do not nest
    |   |-- ManifestMismatch          the output belongs to another run
    |   `-- RunLocked                 another driver holds the run
    |-- WorldError           exit 3   storage, network, disk
    |   |-- VolumeNotFound            nothing readable at the address
    |   |-- VolumeFormatError         there is something, but not what was asked for
    |   |-- StoreUnavailable  retry   time-out, 5xx, connection refused
    |   |-- StoreFull                 no space left, quota reached
    |   |-- StoreReadOnly             no permission to write
    |   `-- CorruptData      exit 4   a chunk or table that does not decode or has the wrong checksum
    |       `-- IntermediateLost      an intermediate that was written is gone
    |-- WorkError            exit 5   computing failed
    |   |-- WeightsError              weights that do not load
    |   |-- DeviceOutOfMemory retry   the accelerator's memory is full
    |   |-- DeviceLost        retry   the accelerator went away
    |   |-- WorkerDied        retry   a worker process died with a task, again and again
    |   |   |-- WorkerCrashed         by a fault in compiled code
    |   |   `-- WorkerOutOfMemory     it held more than its limit
    |   |-- SchedulerUnavailable      no scheduler at the address, or it went away
    |   |-- WorkersUnavailable        no worker came, all left, or the batch system refuses their jobs
    |   |-- TrainingError             the loss is not a number, no window to train on
    |   `-- TaskFailed                blocks are missing after all retries
    `-- OurError             exit 70  a bug in sam4em

Every class takes one message, so that it survives pickling on its way back from a worker.
A message says what was being done, what was found, and what would be right.
"""


class Sam4emError(Exception):
    """Root of the tree. `retry`: the same task may succeed later. `exit_code`: the process's."""

    retry: bool = False
    exit_code: int = 70


class UserError(Sam4emError):
    """The command line or the config must change."""

    exit_code = 2


class ConfigError(UserError):
    """A key, a value or a combination of options is not usable."""


class PlanError(UserError):
    """The run cannot be planned: a block does not fit, or grids do not nest."""


class ManifestMismatch(UserError):
    """The output or the run directory was made with other settings."""


class RunLocked(UserError):
    """Another driver holds the run's lease."""


class WorldError(Sam4emError):
    """Storage, network or disk did not do what was asked."""

    exit_code = 3


class VolumeNotFound(WorldError):
    """There is nothing readable at the address."""


class VolumeFormatError(WorldError):
    """Something is there, but its format, rank or data type is not usable."""


class StoreUnavailable(WorldError):
    """The store did not answer in time or answered with a server error."""

    retry = True


class StoreFull(WorldError):
    """No space is left on the store."""


class StoreReadOnly(WorldError):
    """The store does not allow writing."""


class CorruptData(WorldError):
    """A chunk or table does not decode, or its checksum is wrong."""

    exit_code = 4


class IntermediateLost(CorruptData):
    """An intermediate that was written is gone. The text ends with the task that makes it: `[made by predict-12]`."""


class WorkError(Sam4emError):
    """Computing failed."""

    exit_code = 5


class WeightsError(WorkError):
    """Weights are unreadable or belong to another architecture."""


class DeviceOutOfMemory(WorkError):
    """The accelerator's memory is full."""

    retry = True


class DeviceLost(WorkError):
    """The accelerator went away."""

    retry = True


class WorkerDied(WorkError):
    """A worker process died, or was lost, with a task."""

    retry = True


class WorkerCrashed(WorkerDied):
    """A worker process crashed in compiled code."""


class WorkerOutOfMemory(WorkerDied):
    """A worker process held more memory than it may."""


class SchedulerUnavailable(WorkError):
    """No scheduler answers at the address."""


class WorkersUnavailable(WorkError):
    """There is nobody to work: no worker came within the time limit, or their jobs are refused or die at once."""


class TrainingError(WorkError):
    """Training cannot go on."""


class TaskFailed(WorkError):
    """Blocks are missing after all retries."""


class OurError(Sam4emError):
    """A bug in sam4em."""
