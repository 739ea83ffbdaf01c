"""Stitching a finished run again: thresholds, vetoes, what is refused, and that the first run stays as it was."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from scipy import ndimage

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, ManifestMismatch, TaskFailed, VolumeNotFound
from pipeline.geometry import Box
from pipeline.ledger import ObjectStore, RunState, read_manifest, read_state, write_state
from pipeline.ledger.manifest import MANIFEST_KEY
from pipeline.run import launch, restitch
from pipeline.run.clean import clean_run
from pipeline.run.launch import drive_prepared, run_config
from pipeline.run.restitch import begin_restitch, changed_config, count_joined, open_base, reopen_restitch
from pipeline.run.seams import report_seams
from pipeline.run.serial import SerialExecutor
from pipeline.run.verify import verify_run
from pipeline.stages.context import TaskContext
from pipeline.storage import ObjectStore as Objects
from pipeline.storage import StorageOptions, open_volume
from pipeline.telemetry import SilentReporter

SHAPE = (24, 48, 52)
SERIAL = {"reporter": SilentReporter(), "open_executor": lambda prepared, stages: SerialExecutor(stages)}


def make_config(folder, **sections):
    array = zarr.create_array(str(folder / "em.zarr"), shape=SHAPE, chunks=(8, 16, 16), dtype="uint8")
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(SHAPE), 3)
    array[:] = np.clip(127 + 55 * (noise / noise.std() - 0.4), 1, 254).astype(np.uint8)
    values = {
        "image": {"url": str(folder / "em.zarr"), "voxel_size_zyx_nm": [8, 8, 8]},
        "outputs": [
            {"url": str(folder / "out.zarr"), "chunk_zyx": [8, 16, 16], "num_mips": 2},
            {"url": str(folder / "out"), "chunk_zyx": [8, 16, 16], "num_mips": 2},
        ],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "classes": {"object": {"method": "watershed", "seed_spacing_nm": 60.0, "min_iou": 0.5}},
        "plan": {"block_zyx": [16, 32, 32], "resolve_group_blocks": 2, "watershed_halo_voxels": 12},
        **sections,
    }
    return RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four blocks in two groups; no test may change it."""
    folder = tmp_path_factory.mktemp("base")
    config = make_config(folder)
    run_config(config, **SERIAL)
    return config


@pytest.fixture
def again(finished, tmp_path):
    """Stitch the finished run again; gives what came of it, its summary and its labels."""

    def call(*settings, veto=None, output=None):
        url = str(tmp_path / "again.zarr") if output is None else output
        restitched = begin_restitch(finished, "out.zarr", settings, veto, url)
        summary = drive_prepared(restitched.prepared, restitched.run, **SERIAL)
        return restitched, summary, labels_of(url)

    return call


def labels_of(url):
    return open_volume(url, kind="labels").read(Box.of_shape(SHAPE))


def edges_of(url):
    return pq.read_table(f"{url}.run/edges.parquet")


def write_csv(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_solve_with_the_same_settings_gives_the_same_voxels_and_leaves_the_run_alone(finished, again):
    url = finished.outputs[0].url
    store = Objects(f"{url}.run")
    before = (store.get(MANIFEST_KEY), store.get("ids.json"), edges_of(url))
    restitched, summary, labels = again("min_iou=0.5")
    assert (labels == labels_of(url)).all() and labels.any()
    assert summary.num_tasks == sum(spec.num_tasks for spec in restitched.run.stages.specs())
    assert set(summary.stages) == {"resolve", "audit", "relabel", "pyramid"}
    assert (store.get(MANIFEST_KEY), store.get("ids.json"), edges_of(url)) == before
    assert read_manifest(restitched.run.store).restitched_from["run_url"] == f"{url}.run"


def test_a_threshold_merges_less_or_more_and_equals_a_run_of_its_own(finished, again, tmp_path):
    _, _, strict = again("object.min_iou=0.99", output=str(tmp_path / "strict.zarr"))
    _, _, loose = again("min_iou=0.01", "min_size_nm3=0", output=str(tmp_path / "loose"))
    assert len(np.unique(strict)) > len(np.unique(labels_of(finished.outputs[0].url))) > len(np.unique(loose))
    folder = tmp_path / "own"
    folder.mkdir()
    rule = finished.classes["object"].model_dump() | {"min_iou": 0.99}
    own = make_config(folder, classes={"object": rule})
    run_config(own, **SERIAL)
    assert (labels_of(own.outputs[0].url) == strict).all()
    assert edges_of(own.outputs[0].url).equals(edges_of(str(tmp_path / "strict.zarr")))


def test_what_was_begun_is_gone_on_with_and_verified(finished, tmp_path):
    restitched = begin_restitch(finished, "out.zarr", ["min_iou=0.3"], None, None)
    url = restitched.prepared.plan.config.outputs[0].url
    assert url == begin_restitch(finished, "out.zarr", ["min_iou=0.3"], None, None).prepared.plan.config.outputs[0].url
    assert url != begin_restitch(finished, "out.zarr", ["min_iou=0.4"], None, None).prepared.plan.config.outputs[0].url
    asked = iter([False] * 4)
    first = drive_prepared(restitched.prepared, restitched.run, should_stop=lambda: next(asked, True), **SERIAL)
    assert first.status == "interrupted"
    second = drive_prepared(restitched.prepared, restitched.run, **SERIAL)
    assert second.status == "complete"
    total = sum(spec.num_tasks for spec in restitched.run.stages.specs())
    assert 0 < second.num_tasks < total == first.num_tasks + second.num_tasks
    config = restitched.prepared.plan.config
    opened = reopen_restitch(config, read_manifest(restitched.run.store))
    assert opened.run.manifest.digest == restitched.run.manifest.digest
    verify_run(opened.run.store, opened.run.stages.specs(), opened.run.places, SilentReporter())
    clean_run(opened.run.store, opened.run.places)
    assert (Box.of_shape(SHAPE).num_voxels) == labels_of(url).size
    assert begin_restitch(finished, "out.zarr", ["min_iou=0.3"], None, None) is not None
    with pytest.raises(ManifestMismatch, match=r"classes\.object\.min_iou was 0\.3"):
        begin_restitch(finished, "out.zarr", ["min_iou=0.35"], None, url)


def accepted_rows(url):
    rows = edges_of(url).to_pylist()
    return [row for row in rows if row["accepted"] and row["lower_id"] > 0]


@pytest.mark.parametrize("kind", ["labels.csv", "labels.parquet"])
def test_a_veto_of_a_pair_of_labels_cuts_it(finished, again, tmp_path, kind):
    url = finished.outputs[0].url
    row = min(accepted_rows(url), key=lambda row: row["lower_voxels"])
    columns = ["class", "lower_block", "upper_block", "lower_label", "upper_label"]
    path = tmp_path / kind
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        write_csv(path, ",".join([*columns, "note"]), ",".join([*(str(row[name]) for name in columns), "cut"]))
    restitched, _, labels = again(veto=path)
    (vetoed,) = [new for new in edges_of(str(tmp_path / "again.zarr")).to_pylist() if new["reason"] == "veto"]
    assert {name: vetoed[name] for name in columns} == {name: row[name] for name in columns}
    assert not vetoed["accepted"] and not vetoed["near_miss"]
    joined = int(vetoed["lower_id"] == vetoed["upper_id"])
    assert count_joined(restitched) == joined
    assert len(np.unique(labels)) == len(np.unique(labels_of(url))) + 1 - joined


def test_the_same_id_twice_cuts_every_seam_of_an_object(finished, again, tmp_path):
    url = finished.outputs[0].url
    chosen = accepted_rows(url)[0]["lower_id"]
    pairs = [row for row in accepted_rows(url) if row["lower_id"] == chosen]
    restitched, _, labels = again(veto=write_csv(tmp_path / "v.csv", "first_id,second_id", f"{chosen},{chosen}"))
    assert len(restitched.book.block) == len(
        [r for r in edges_of(url).to_pylist() if r["lower_id"] == r["upper_id"] == chosen]
    )
    assert count_joined(restitched) == 0
    here = labels_of(url) == chosen
    parts = np.unique(labels[here])
    segments = pq.read_table(f"{url}.run/segments.parquet").to_pylist()
    (num_labels,) = [row["num_labels"] for row in segments if row["id"] == chosen]
    assert len(parts) == num_labels > 1 and len(pairs) >= num_labels - 1
    assert (labels[~here] > 0).sum() == ((labels_of(url) > 0) & ~here).sum()


def test_a_veto_that_others_undo_is_counted_and_an_order_merges_what_was_refused(finished, again, tmp_path):
    url = finished.outputs[0].url
    refused = next(
        row for row in edges_of(url).to_pylist() if not row["accepted"] and row["lower_id"] and row["upper_id"]
    )
    ids = refused["lower_id"], refused["upper_id"]
    assert ids[0] != ids[1]
    lines = ("first_id,second_id,action", f"{ids[1]},{ids[0]},merge")
    restitched, _, labels = again(veto=write_csv(tmp_path / "m.csv", *lines))
    before = labels_of(url)
    assert len({int(new) for id_ in ids for new in np.unique(labels[before == id_])}) == 1
    assert restitched.book.merge.all()
    assert "forced" in edges_of(str(tmp_path / "again.zarr")).column("reason").to_pylist()
    # A veto of one pair of an object that stays whole through its other pairs.
    book = dataclasses.replace(restitched, book=restitched.book._replace(merge=~restitched.book.merge))
    assert count_joined(book) == len(restitched.book.merge)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), "nothing would change"),
        (("min_iou",), "expected KEY=VALUE"),
        (("threshold=0.4",), "decided when blocks are labelled"),
        (("other.min_iou=0.4",), "no objects of class 'other'; it has object"),
        (("min_iou=1.5",), r"classes\.object\.min_iou"),
        (("min_iou=0",), r"classes\.object\.min_iou"),
        (("min_iou=wide",), r"classes\.object\.min_iou"),
        (("min_size_nm3=-1",), r"classes\.object\.min_size_nm3"),
        (("stitch=any",), "undoes a watershed"),
    ],
)
def test_settings_that_cannot_be(finished, settings, expected):
    with pytest.raises(ConfigError, match=expected):
        begin_restitch(finished, "out.zarr", settings, None, None)


def test_the_output_of_the_run_itself_is_refused(finished):
    plan = open_base(finished, "out.zarr").plan
    for section in finished.outputs:
        with pytest.raises(ConfigError, match="stays as it is"):
            changed_config(plan, ["min_iou=0.4"], section.url + "/", None)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"complete": False}, ConfigError, "not complete"),
        ({"cleaned": True}, ConfigError, "keep_intermediates"),
    ],
)
def test_a_run_that_is_not_ready(finished, change, error, expected):
    store = Objects(finished.outputs[0].url + ".run")
    state = read_state(store)
    write_state(store, RunState(**{**dataclasses.asdict(state), **change}))
    try:
        with pytest.raises(error, match=expected):
            begin_restitch(finished, "out.zarr", ["min_iou=0.4"], None, None)
    finally:
        write_state(store, state)


def test_a_run_of_another_version_or_none_at_all(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(restitch, "RESULT_VERSION", launch.RESULT_VERSION + 1)
    with pytest.raises(ManifestMismatch, match="result version"):
        begin_restitch(finished, "out.zarr", ["min_iou=0.4"], None, None)
    outputs = tuple(section.model_copy(update={"url": str(tmp_path / "no.zarr")}) for section in finished.outputs[:1])
    with pytest.raises(VolumeNotFound, match="no run has begun"):
        begin_restitch(finished.model_copy(update={"outputs": outputs}), "no.zarr", ["min_iou=0.4"], None, None)


def test_a_restitched_run_is_no_base_and_its_own_base_must_stay(finished, again):
    restitched, _, _ = again("min_iou=0.7")
    config = restitched.prepared.plan.config
    with pytest.raises(ConfigError, match="itself stitched again"):
        begin_restitch(config, "again.zarr", ["min_iou=0.4"], None, None)
    begun = read_manifest(restitched.run.store)
    other = dataclasses.replace(begun, restitched_from={**begun.restitched_from, "digest": "ff"})
    with pytest.raises(ManifestMismatch, match="made anew"):
        reopen_restitch(config, other)
    gone = dataclasses.replace(begun, restitched_from={**begun.restitched_from, "run_url": "/nowhere.run"})
    with pytest.raises(VolumeNotFound, match="is gone"):
        reopen_restitch(config, gone)


def test_labels_that_went_away_fail_the_tasks_that_need_them(finished, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    own = make_config(folder)
    run_config(own, **SERIAL)
    Objects(f"{own.outputs[0].url}.run").delete_prefix("scratch")
    restitched = begin_restitch(own, "out.zarr", ["min_iou=0.4"], None, None)
    with pytest.raises((TaskFailed, VolumeNotFound), match="relabel-0"):
        drive_prepared(restitched.prepared, restitched.run, **SERIAL)


def test_the_seams_are_summed_up_and_the_worst_are_drawn(finished, again):
    restitched, _, _ = again("min_iou=0.95")
    plan, store = restitched.prepared.plan, restitched.run.store
    rows = pq.read_table(f"{plan.run_url}/seams.parquet").to_pylist()
    report = report_seams(plan, TaskContext(plan, options=StorageOptions()), store, 3)
    assert json.loads(store.get("seams.json")) == report
    assert report["faces"] == len(rows) == sum(axis["faces"] for axis in report["by_axis"].values())
    assert report["mismatch_voxels"] == sum(row["mismatch_voxels"] for row in rows) > 0
    assert report["faces_above_1.0%"] == sum(row["mismatch_fraction"] > 0.01 for row in rows)
    worst = list(report["worst_faces"].values())
    assert [row["mismatch_fraction"] for row in worst] == sorted((r["mismatch_fraction"] for r in rows), reverse=True)[
        :3
    ]
    assert store.get(worst[0]["picture"]).startswith(b"\x89PNG")
    clean_me = TaskContext(plan, options=StorageOptions())
    clean_me.delete_scratch()
    cleaned = report_seams(plan, clean_me, store, 1)
    assert "clean" in next(iter(cleaned["worst_faces"].values()))["picture"]


def test_the_seams_of_a_run_that_has_not_come_so_far(finished, tmp_path):
    restitched = begin_restitch(finished, "out.zarr", ["min_iou=0.4"], None, str(tmp_path / "never.zarr"))
    plan = restitched.prepared.plan
    store: ObjectStore = restitched.run.store
    with pytest.raises(ConfigError, match="has not come so far"):
        report_seams(plan, TaskContext(plan, options=StorageOptions()), store, 1)
