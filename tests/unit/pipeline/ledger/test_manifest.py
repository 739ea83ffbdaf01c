from dataclasses import replace

import pytest

from pipeline.errors import CorruptData, ManifestMismatch
from pipeline.ledger.manifest import (
    MANIFEST_KEY,
    RunManifest,
    RunState,
    changed_packages,
    check_same,
    flatten,
    read_manifest,
    read_state,
    write_manifest,
    write_state,
)

BASE = RunManifest(
    config={"image": {"url": "em.zarr", "roi": None}, "outputs": [{"url": "a.zarr"}], "classes": {}},
    segmenter={"name": "threshold", "weights_sha256": ""},
    image={"shape": [11, 13, 17], "etag": "abc"},
    grids={"label": [1, 2, 3]},
    num_tasks={"label": 6, "resolve": 1},
    grey_range=(0.0, 255.0),
    result_version=1,
    outputs=({"url": "a.zarr", "kind": "volume"},),
    packages={"numpy": "2.1"},
)


def test_it_comes_back_equal(store):
    assert read_manifest(store) is None
    assert write_manifest(store, BASE) == BASE
    found = read_manifest(store)
    assert found == BASE
    check_same(found, BASE)


def test_the_first_one_stays(store):
    write_manifest(store, BASE)
    other = replace(BASE, result_version=2)
    assert write_manifest(store, other) == BASE


@pytest.mark.parametrize(
    ("change", "name", "values"),
    [
        ({"segmenter": {"name": "threshold", "weights_sha256": "ff"}}, "segmenter.weights_sha256", ["''", "'ff'"]),
        ({"config": {**BASE.config, "image": {"url": "other.zarr"}}}, "config.image.roi", ["None", "absent"]),
        ({"image": {"shape": [11, 13, 19], "etag": "abc"}}, "image.shape.2", ["17", "19"]),
        ({"grey_range": (0.0, 254.0)}, "grey_range.1", ["255.0", "254.0"]),
        ({"grey_range": None}, "grey_range", ["absent", "None"]),
        ({"result_version": 2}, "result_version", ["1", "2"]),
        ({"grids": {"label": [1, 2, 3, 4]}}, "grids.label.3", ["absent", "4"]),
    ],
)
def test_a_difference_is_named_with_both_values(change, name, values):
    with pytest.raises(ManifestMismatch) as caught:
        check_same(BASE, replace(BASE, **change))
    message = str(caught.value)
    assert f": {name} was {values[0]} when it began and is {values[1]} now" in message
    assert "--restart" in message


def test_library_versions_are_told_but_do_not_refuse():
    newer = replace(BASE, packages={"numpy": "2.2", "scipy": "1.0"})
    check_same(BASE, newer)
    assert changed_packages(BASE, newer) == ["numpy was 2.1, is 2.2", "scipy was absent, is 1.0"]
    assert newer.digest == BASE.digest


def test_the_digest_follows_the_identity():
    assert replace(BASE, result_version=2).digest != BASE.digest


def test_another_layout_is_refused(store):
    write_manifest(store, replace(BASE, format_version=99))
    with pytest.raises(ManifestMismatch, match="format_version is 99"):
        read_manifest(store)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"format_version": 1, "config": {}}'])
def test_a_damaged_manifest_is_told(store, data):
    store.put(MANIFEST_KEY, data)
    with pytest.raises(CorruptData, match=r"manifest\.json"):
        read_manifest(store)


def test_state_comes_back(store):
    assert read_state(store) == RunState()
    state = RunState(complete=True, reasons_not_bit_reproducible=["smaller batch"])
    write_state(store, state)
    assert read_state(store) == state


def test_flatten_keeps_empty_leaves():
    assert list(flatten({"b": {}, "a": [1, {"c": None}]})) == [("a.0", 1), ("a.1.c", None), ("b", {})]
