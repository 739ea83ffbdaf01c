"""A dual-track training from a file: a ball in a stored volume, two labelled slices, tiny networks."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import main
from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.run.rounds import round_config, segment_round
from pipeline.storage import ImageSpec, ImageWriter, open_volume
from pipeline.training.round_store import OmeZarrRounds, read_layer
from pipeline.training.spatial import describe_rounds, run_spatial

NM = (8.0, 8.0, 8.0)
TINY_MODEL = {
    "embed_dim": 8,
    "stages": [1, 1, 1, 1],
    "windows": [4, 4, 4, 4],
    "global_blocks": [],
    "d_model": 64,
    "memory_dim": 32,
    "decoder_depth": 1,
    "decoder_heads": 1,
    "decoder_mlp_dim": 16,
    "sdf_memory": {"reach": 1, "mlp_dim": 16},
}


def write(path, array, kind):
    writer = ImageWriter(ImageSpec(str(path), array.shape, "uint8", NM, chunk_zyx=array.shape, kind=kind))
    writer.create()
    writer.write(Box.of_shape(array.shape), array)


@pytest.fixture
def make_file(tmp_path):
    image = np.random.default_rng(3).integers(150, 230, (21, 53, 61), dtype=np.uint8)
    labels = np.zeros(image.shape, np.uint8)
    labels[:, 11:41, 17:43] = 1
    image[labels == 1] //= 3
    write(tmp_path / "em.zarr", image, "image")
    write(tmp_path / "labels.zarr", labels, "labels")

    def make(name="train", **changes):
        stage = {"name": "only", "recipe": "pretrain", "steps": 10, "batch_windows": 1, "window_slices": 3}
        stage |= {"crop_voxels": 32, "warmup_steps": 1, "learning_rate": 1e-2, "final_rate_fraction": 1.0}
        spatial = {
            "name": "tiny",
            "shared": {
                "classes": ["mito"],
                "voxel_size_zyx_nm": NM,
                "device": "cpu",
                "model": TINY_MODEL,
                "tile_voxels": 64,
                "tile_overlap_voxels": 8,
                "window_slices": 3,
                "warmup_slices": 1,
                "ema_decay": 0.0,
                "tensorboard": False,
                "validation": {"every_steps": 100, "thresholds": [0.3, 0.5, 0.7], "pictures": False},
            },
            "propagation": {"stages": [stage]},
            "sdf": {
                "voxel_size_zyx_nm": [16.0, 16.0, 16.0],
                "unet": {"widths": [8, 8, 8, 8], "tau_nm": 64, "patch_zyx": [8, 16, 16], "overlap_zyx": [2, 2, 2]},
                "stages": [{**stage, "window_slices": 8}],
            },
            "masks": {"stages": [{**stage, "recipe": "full"}]},
            "rounds": 1,
            "selection": {"min_speck_nm3": 0.0},
            "round_zero": {"films_per_slice": 1, "drift_slices": 3, "start": "propagation"},
        }
        volume = {
            "name": "ball",
            "image": str(tmp_path / "em.zarr"),
            "labels": {"mito": str(tmp_path / "labels.zarr")},
            "region": {"z": [1, 20], "x": [3, 61]},
            "labelled_slices": [3, 13],
            "train": [2, 15],
            "choose": [16, 20],
        }
        values = {"volumes": [volume], "spatial": spatial, "run_dir": str(tmp_path / "run"), **changes}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
        return path

    return make


def refuse(request):
    raise AssertionError(f"the pipeline was asked for {request.name}")


@pytest.fixture
def trained(make_file, tmp_path):
    path = make_file(score_hidden=True)
    result = CliRunner().invoke(main.app, ["train-spatial", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return tmp_path / "run", result.output


def test_the_command_trains_shows_its_rounds_and_suggests_slices(trained, tmp_path):
    run_dir, output = trained
    assert "round 1" in output
    summary = describe_rounds(run_dir)
    assert summary["best_round"] == 1
    assert summary["rounds"]["round 1"]["hidden_dice"] > 0.5

    # Pseudo-labels lie where they lie in the image, and can be opened as volumes.
    place = run_dir / "round-1" / "ball"
    labels = open_volume(str(place / "labels-mito.zarr"), kind="labels")
    assert labels.info.shape == (13, 53, 58)
    assert labels.info.origin_zyx_nm == pytest.approx((2 * 8 - 4, -4, 3 * 8 - 4))
    truth = open_volume(str(tmp_path / "labels.zarr"), kind="labels")
    assert np.array_equal(
        read_layer(place, "labels", "mito")[[1, 11]],
        truth.read(Box((0, 0, 3), (21, 53, 61)))[[3, 13]],
    )
    assert set(OmeZarrRounds(["mito"]).load(place)[0]) == {"probability", "disagreement", "labels", "distance"}

    result = CliRunner().invoke(main.app, ["suggest-slices", str(run_dir), "--count", "2", "--json"])
    rows = json.loads(result.output)
    assert len(rows) == 2
    assert all(2 <= row["slice"] < 15 and row["slice"] not in (3, 13) for row in rows)
    table = CliRunner().invoke(main.app, ["suggest-slices", str(run_dir)])
    assert "slices to nearest" in table.output


def layers_of(run_dir):
    return OmeZarrRounds(["mito"]).load(run_dir / "round-1" / "ball")[0]


def test_a_round_through_the_pipeline_is_that_in_memory_but_for_rounding(make_file, tmp_path):
    """Of a whole image both see the same; in memory its grey values are rounded to bytes first."""
    volume = {
        "name": "ball",
        "image": str(tmp_path / "em.zarr"),
        "labels": {"mito": str(tmp_path / "labels.zarr")},
        "labelled_slices": [3, 13],
        "train": [0, 21],
    }
    for kind in ("memory", "pipeline"):
        path = make_file(kind, inference={"kind": kind}, volumes=[volume])
        run_spatial(path, segment=segment_round, run_dir=tmp_path / kind)
    one, other = layers_of(tmp_path / "memory"), layers_of(tmp_path / "pipeline")
    for name in ("probability", "distance"):
        difference = np.abs(one[name].astype(int) - other[name])
        assert np.percentile(difference, 95) <= 1, name
        assert len(np.unique(one[name])) > 20, name


def test_a_round_through_the_pipeline_asks_for_the_region_and_sees_what_lies_around(trained, make_file, tmp_path):
    memory, _ = trained
    path = make_file("dask", inference={"kind": "pipeline", "workers": 1}, score_hidden=True)
    requests = []

    def segment(request):
        requests.append(request)
        return segment_round(request)

    run_spatial(path, segment=segment, run_dir=tmp_path / "dask-run")
    (request,) = requests
    assert request.roi == Box((2, 0, 3), (15, 53, 61))
    assert round_config(request).predictions.distances
    one, other = layers_of(memory), layers_of(tmp_path / "dask-run")
    assert one["distance"].shape == other["distance"].shape == (1, 13, 53, 58)
    assert not np.array_equal(one["distance"], other["distance"])
    assert (tmp_path / "dask-run" / "round-1" / "inference" / "ball.zarr.run" / "manifest.json").exists()


def test_half_written_pseudo_labels_are_written_again(trained, make_file):
    run_dir, _ = trained
    place = run_dir / "round-1" / "ball"
    before, _ = OmeZarrRounds(["mito"]).load(place)
    place.rename(place.with_name(".ball.part"))
    (place.with_name(".ball.part") / "facts.json").unlink()
    (run_dir / "round-1" / "scores.json").unlink()
    assert OmeZarrRounds(["mito"]).load(place) is None
    run_spatial(make_file(score_hidden=True), segment=refuse, resume=True)
    after, _ = OmeZarrRounds(["mito"]).load(place)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not place.with_name(".ball.part").exists()


def test_one_command_ends_with_the_scored_segmentation_of_the_whole_image(make_file, tmp_path):
    truth = {"mito": str(tmp_path / "labels.zarr")}
    section = {"volume": "ball", "outputs": [str(tmp_path / "out")], "min_size_nm3": 0.0, "truth": truth, "workers": 1}
    path = make_file(segment=[{**section, "score_roi": "15:21,0:53,0:61"}])
    result = CliRunner().invoke(main.app, ["train-spatial", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "segmentations.json").read_text())[str(tmp_path / "out")]
    assert found["scores"]["dice"] > 0.5
    assert found["scores"]["voxels"] == 6 * 53 * 61
    # All of the image, not the region that was learnt from.
    assert open_volume(str(tmp_path / "out"), kind="labels").info.shape == (21, 53, 61)

    again = CliRunner().invoke(main.app, ["train-spatial", str(path), "--resume"], catch_exceptions=False)
    assert "already complete" in again.output


def test_what_cannot_be_segmented_is_refused_before_the_training(make_file, tmp_path):
    section = {"volume": "ball", "outputs": [str(tmp_path / "out")]}
    with pytest.raises(ConfigError, match="'bal' is no stored volume of this config; stored are: ball"):
        run_spatial(make_file(segment=[{**section, "volume": "bal"}]), segment=refuse)
    with pytest.raises(ConfigError, match="truth of glia; the classes are mito"):
        run_spatial(make_file(segment=[{**section, "truth": {"glia": "x.zarr"}}]), segment=refuse)
    with pytest.raises(ConfigError, match="roi"):
        run_spatial(make_file(segment=[{**section, "score_roi": "140:165"}]), segment=refuse)
    with pytest.raises(VolumeNotFound, match=r"x\.zarr"):
        run_spatial(make_file(segment=[{**section, "truth": {"mito": str(tmp_path / "x.zarr")}}]), segment=refuse)
    with pytest.raises(ConfigError, match=r"slurm\.yaml"):
        run_spatial(make_file(segment=[{**section, "cluster": str(tmp_path / "slurm.yaml")}]), segment=refuse)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(make_file, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        run_spatial(make_file(), segment=refuse)


def test_bad_configs(make_file):
    with pytest.raises(ConfigError, match="did you mean 'inference'"):
        run_spatial(make_file(inferense={}), segment=refuse)
    with pytest.raises(ConfigError, match="hold no labelled slice"):
        run_spatial(make_file(), ["volumes.0.labelled_slices=[]"], segment=refuse)
    with pytest.raises(ConfigError, match=r"labelled_slices \[16\] lie outside the train range 2:15"):
        run_spatial(make_file(), ["volumes.0.labelled_slices=[3, 16]"], segment=refuse)
    with pytest.raises(ConfigError, match="there is no section direct"):
        run_spatial(make_file(), ["spatial.round_zero.start=direct"], segment=refuse)


def test_a_part_that_could_not_be_trained_is_refused_before_the_first_one(make_file, tmp_path):
    with pytest.raises(ConfigError, match=r"spatial\.sdf, with .*: unet_: no such key; did you mean 'unet'"):
        run_spatial(make_file(), ["spatial.sdf.unet_={}"], segment=refuse)
    with pytest.raises(ConfigError, match=r"train\.yaml: spatial\.masks, .*: stages\.0: crop_voxels is 40; .*multiple"):
        run_spatial(make_file(), ["spatial.masks.stages.0.crop_voxels=40"], segment=refuse)
    with pytest.raises(ConfigError, match=r"sdf: stage only: windows of \(5, 32, 32\) voxels"):
        run_spatial(make_file(), ["spatial.sdf.stages.0.window_slices=5"], segment=refuse)
    assert not (tmp_path / "run").exists()
