import pickle

import pytest

from sam4em_core import errors

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_belongs_to_the_tree_and_pickles(kind):
    copy = pickle.loads(pickle.dumps(kind("block 3: found 2")))  # noqa: S301
    assert isinstance(copy, errors.CoreError)
    assert type(copy) is kind
    assert str(copy) == "block 3: found 2"
    assert kind.__name__ in errors.__doc__
