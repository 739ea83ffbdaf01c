"""Training: a config file in, a trained model out.

    run (run_training, export_model) > volumes > schema | overrides

The core trains on arrays and knows no store; this package is its only caller.
"""

from pipeline.training.overrides import with_overrides
from pipeline.training.run import export_model, run_training
from pipeline.training.schema import PhantomSection, TrainingFile, VolumeSection
from pipeline.training.volumes import load_volume

__all__ = [
    "PhantomSection",
    "TrainingFile",
    "VolumeSection",
    "export_model",
    "load_volume",
    "run_training",
    "with_overrides",
]
