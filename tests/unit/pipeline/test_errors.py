import inspect
import pickle

import pytest

from pipeline import errors

CLASSES = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, errors.Sam4emError) and item is not errors.Sam4emError
]
FAMILIES = {
    errors.UserError: {2},
    errors.WorldError: {3, 4},
    errors.WorkError: {5},
    errors.OurError: {70},
}


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_pickles_and_belongs_to_one_family(error_class):
    error = pickle.loads(pickle.dumps(error_class("reading block 3: found 2, expected 5")))  # noqa: S301
    assert str(error) == "reading block 3: found 2, expected 5"
    families = [family for family in FAMILIES if issubclass(error_class, family)]
    assert len(families) == 1
    assert error.exit_code in FAMILIES[families[0]]


@pytest.mark.parametrize("error_class", CLASSES)
def test_the_module_docstring_draws_every_class(error_class):
    assert error_class.__name__ in errors.__doc__


def test_only_passing_faults_are_retried():
    retried = {item.__name__ for item in CLASSES if item.retry}
    deaths = {"WorkerDied", "WorkerCrashed", "WorkerOutOfMemory"}
    assert retried == {"StoreUnavailable", "DeviceOutOfMemory", "DeviceLost", *deaths}
