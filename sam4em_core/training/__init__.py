"""Training: volumes as arrays in, a checkpoint out.

    dual_track (train_spatial) > round_zero | round_scores | rounds > round_data > tracks | subjects | pseudo_labels
    | drift > run
    run (train) > loop | shipping > sampler | augment | losses | finetune | validate | pictures > rundir | provenance
    > data | state | board | distributed | speed > spatial_config > config > sections

Importing this package imports torch; `sam4em_core` itself does not.
"""

from sam4em_core.training.config import TrainingConfig
from sam4em_core.training.data import TrainingVolume
from sam4em_core.training.run import train

__all__ = ["TrainingConfig", "TrainingVolume", "train"]
