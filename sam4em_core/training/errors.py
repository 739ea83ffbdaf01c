"""What can go wrong in a training run, as branches of the core's error tree.

    CoreError
    |-- TrainingSetupError        volumes, labels, splits, or a resume that does not fit
    |-- TrainingStopped           the loss is not a number
    `-- TrainingDiskError         a file of the run directory cannot be written

Every class takes one message, so that it survives pickling.
"""

from __future__ import annotations

from sam4em_core.errors import CoreError


class TrainingSetupError(CoreError):
    """The config, the volumes or the run directory must change."""


class TrainingStopped(CoreError):
    """Training cannot go on; the last checkpoint is whole."""


class TrainingDiskError(CoreError):
    """A file of the run directory cannot be written."""
