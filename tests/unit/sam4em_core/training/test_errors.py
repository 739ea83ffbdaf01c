import pickle

import pytest

from sam4em_core.errors import CoreError
from sam4em_core.training.errors import TrainingDiskError, TrainingSetupError, TrainingStopped


@pytest.mark.parametrize("kind", [TrainingDiskError, TrainingSetupError, TrainingStopped])
def test_is_a_core_error_and_pickles(kind):
    error = pickle.loads(pickle.dumps(kind("what happened")))  # noqa: S301 - made one line above
    assert isinstance(error, CoreError)
    assert str(error) == "what happened"
