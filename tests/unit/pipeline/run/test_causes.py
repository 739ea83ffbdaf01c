import inspect

import pytest

from pipeline import errors
from pipeline.run.causes import cause_of, count_causes


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("CorruptData: chunk (0, 0, 3) does not decode", "data"),
        ("IntermediateLost: gone [made by predict-12]", "data"),
        ("VolumeNotFound: nothing there", "data"),
        ("StoreUnavailable: 503", "store"),
        ("StoreFull: no space", "store"),
        ("WorkerOutOfMemory: held 3 bytes", "memory"),
        ("MemoryError: the worker's host memory is full", "memory"),
        ("DeviceOutOfMemory: full", "memory"),
        ("WorkerCrashed: SIGSEGV", "crash"),
        ("WorkerDied: nobody told", "worker lost"),
        ("DeviceLost: gone", "device"),
        ("WeightsError: a NaN", "model"),
        ("OurError: unexpected ValueError: x", "code"),
        ("no cause recorded", "code"),
    ],
)
def test_every_failure_has_a_cause(error, cause):
    assert cause_of(error) == cause


def test_every_error_of_the_world_is_data_or_store():
    kinds = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.WorldError)]
    assert {cause_of(f"{kind.__name__}: x") for kind in kinds} == {"data", "store"}


def test_the_most_frequent_cause_comes_first():
    found = ["CorruptData: a", "WorkerCrashed: b", "WorkerCrashed: c"]
    assert list(count_causes(found).items()) == [("crash", 2), ("data", 1)]
