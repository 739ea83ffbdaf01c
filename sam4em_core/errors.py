"""Every error that the model core raises on purpose.

    CoreError
    |-- CoreConfigError           a model, LoRA or tile setting that cannot be used
    |-- ImageShapeError           an image or block of a shape that the model refuses
    |-- CheckpointError           a weights file that cannot be read or written
    |   `-- ArchitectureMismatch  readable weights that belong to another network
    |-- DeviceError               the accelerator
    |   |-- DeviceMemoryError     its memory is full
    |   `-- DeviceLostError       it went away, or its context is broken
    `-- NonFiniteError            a NaN or an infinity where a number was expected

The core knows no exit codes: `pipeline/segmenter` maps each class to one of the pipeline's own.
Every class takes one message, so that it survives pickling on its way back from a worker.
"""


class CoreError(Exception):
    """Root of the tree."""


class CoreConfigError(CoreError):
    """A setting, or a combination of settings, cannot be used."""


class ImageShapeError(CoreError):
    """An image has a rank, side or data type that the model refuses."""


class CheckpointError(CoreError):
    """A weights file cannot be read or written."""


class ArchitectureMismatch(CheckpointError):
    """The weights are readable but belong to another network."""


class DeviceError(CoreError):
    """The accelerator failed."""


class DeviceMemoryError(DeviceError):
    """The accelerator's memory is full."""


class DeviceLostError(DeviceError):
    """The accelerator went away, or its context can no longer be used."""


class NonFiniteError(CoreError):
    """A NaN or an infinity appeared where a finite number was expected."""
