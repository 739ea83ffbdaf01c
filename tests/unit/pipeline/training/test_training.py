import numpy as np
import pytest
import yaml
import zarr

from pipeline.errors import ConfigError, StoreFull, TrainingError, WeightsError
from pipeline.segmenter import model_header
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, export_model, load_volume, run_training, with_overrides
from sam4em_core import errors as core_errors
from sam4em_core import training as core_training
from sam4em_core.training import errors as training_errors

CLASSES = ("glia", "mitochondrion")


def stage(**changes):
    return {"name": "s", "recipe": "pretrain", "steps": 1, **changes}


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    paths = {}
    for name in ("image", "glia", "mito"):
        values = rng.integers(0, 5, (7, 11, 13)).astype(np.uint8)
        zarr.create_array(str(tmp_path / name), data=values, chunks=(7, 11, 13))
        paths[name] = (str(tmp_path / name), values)
    return paths


def section(stored, **changes):
    values = {
        "name": "v",
        "image": stored["image"][0],
        "labels": {"mitochondrion": stored["mito"][0], "glia": stored["glia"][0]},
        "voxel_size_zyx_nm": [8.0, 5.0, 5.0],
        "train": [0, 5],
    }
    file = {"volumes": [{**values, **changes}], "training": {}}
    return TrainingFile.model_validate(file).volumes[0]


def test_reads_image_and_labels_in_the_order_of_the_classes(stored):
    volume = load_volume(section(stored), CLASSES, StorageOptions())
    np.testing.assert_array_equal(volume.image_zyx, stored["image"][1])
    np.testing.assert_array_equal(volume.labels_czyx[0], stored["glia"][1] != 0)
    np.testing.assert_array_equal(volume.labels_czyx[1], stored["mito"][1] != 0)
    assert volume.voxel_size_zyx_nm == (8.0, 5.0, 5.0)
    assert volume.train == (0, 5)


def test_slices_beyond_the_limit_are_not_read(stored):
    volume = load_volume(section(stored, read_slices=5), CLASSES, StorageOptions())
    assert volume.image_zyx.shape == (5, 11, 13)
    assert volume.labels_czyx.shape == (2, 5, 11, 13)


def test_sparse_and_unlabelled_truth(stored):
    volume = load_volume(section(stored, labelled_slices=[1, 3], unlabelled=4), CLASSES, StorageOptions())
    known = stored["mito"][1]
    assert (volume.labels_czyx[1, [0, 2, 4, 5, 6]] == 255).all()
    np.testing.assert_array_equal(volume.labels_czyx[1, 3] == 255, known[3] == 4)
    np.testing.assert_array_equal(volume.labels_czyx[1, 3] == 1, (known[3] != 0) & (known[3] != 4))


def test_draws_a_phantom():
    values = {
        "name": "p",
        "phantom": {"seed": 1, "shape_zyx": [3, 64, 67], "voxel_size_zyx_nm": [10.0, 10.0, 10.0]},
        "labels": {"glia": "glia"},
        "train": [0, 3],
    }
    one = TrainingFile.model_validate({"volumes": [values], "training": {}}).volumes[0]
    volume = load_volume(one, ("glia",), StorageOptions())
    assert volume.image_zyx.shape == (3, 64, 67)
    assert set(np.unique(volume.labels_czyx)) <= {0, 1}


def test_refuses_labels_of_another_shape(stored, tmp_path):
    zarr.create_array(str(tmp_path / "small"), data=np.zeros((7, 11, 12), np.uint8), chunks=(7, 11, 12))
    labels = {"mitochondrion": str(tmp_path / "small"), "glia": stored["glia"][0]}
    with pytest.raises(ConfigError, match="labels of mitochondrion"):
        load_volume(section(stored, labels=labels), CLASSES, StorageOptions())


def test_refuses_classes_that_the_volume_does_not_have(stored):
    with pytest.raises(ConfigError, match="synapse"):
        load_volume(section(stored), ("synapse",), StorageOptions())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phantom": {"seed": 1, "shape_zyx": [1, 1, 1], "voxel_size_zyx_nm": [5.0] * 3}}, "either image or phantom"),
        ({"read_slices": 3}, "lies beyond"),
        ({"labelled_every": 2, "labelled_slices": [1]}, "either labelled_slices or labelled_every"),
        ({"trian": [0, 3]}, "trian"),
    ],
)
def test_refuses_sections_that_contradict_themselves(stored, changes, message):
    with pytest.raises(ValueError, match=message):
        section(stored, **changes)


def test_overrides_reach_lists_and_numbers():
    values = {"training": {"seed": 1, "stages": [{"steps": 3}]}}
    with_overrides(values, ["training.seed=7", "training.stages.0.steps=11", "training.base=a/b.safetensors"])
    assert values == {"training": {"seed": 7, "stages": [{"steps": 11}], "base": "a/b.safetensors"}}


@pytest.mark.parametrize("override", ["seed", "=3", "training.stages.x.steps=3", "nothing.here=3", "a.4=1"])
def test_refuses_overrides_that_lead_nowhere(override):
    with pytest.raises(ConfigError, match="override"):
        with_overrides({"training": {"stages": [{}]}, "a": [1]}, [override])


def write_config(path, stored, **training):
    file = {
        "volumes": [section(stored).model_dump(mode="json", exclude_none=True)],
        "training": {"name": "t", "classes": list(CLASSES), "stages": [stage()], **training},
        "run_dir": str(path.parent / "run"),
    }
    path.write_text(yaml.safe_dump(file))
    return path


def test_hands_volumes_and_settings_to_the_core(tmp_path, stored, monkeypatch):
    seen = {}

    def train(config, volumes, run_dir, *, resume):
        seen.update(config=config, volumes=volumes, run_dir=run_dir, resume=resume)
        return run_dir / "best.safetensors"

    monkeypatch.setattr(core_training, "train", train)
    path = write_config(tmp_path / "c.yaml", stored)
    best = run_training(path, ["training.seed=5"], resume=True)
    assert best == tmp_path / "run" / "best.safetensors"
    assert seen["config"].seed == 5
    assert seen["resume"]
    assert [volume.name for volume in seen["volumes"]] == ["v"]
    run_training(path, run_dir=tmp_path / "other")
    assert seen["run_dir"] == tmp_path / "other"


def test_a_misspelt_setting_is_named_with_the_right_one(tmp_path, stored):
    path = write_config(tmp_path / "c.yaml", stored, thraeds=2)
    with pytest.raises(ConfigError, match=r"thraeds.*threads"):
        run_training(path)


@pytest.mark.parametrize(
    ("raised", "mapped"),
    [
        (core_errors.CoreConfigError, ConfigError),
        (core_errors.ImageShapeError, ConfigError),
        (training_errors.TrainingSetupError, ConfigError),
        (core_errors.CheckpointError, WeightsError),
        (core_errors.ArchitectureMismatch, WeightsError),
        (training_errors.TrainingDiskError, StoreFull),
        (training_errors.TrainingStopped, TrainingError),
        (core_errors.NonFiniteError, TrainingError),
    ],
)
def test_errors_of_the_core_become_the_pipelines(tmp_path, stored, monkeypatch, raised, mapped):
    def train(*_, **__):
        raise raised("what happened")

    monkeypatch.setattr(core_training, "train", train)
    with pytest.raises(mapped, match="what happened"):
        run_training(write_config(tmp_path / "c.yaml", stored))


def test_the_shipped_configs_are_valid():
    from pathlib import Path

    from pipeline.config.read import parse_config, read_yaml

    folder = Path(__file__).parents[4] / "configs" / "train"
    paths = sorted(folder.glob("*.yaml"))
    assert paths
    for path in paths:
        file = parse_config(read_yaml(path), TrainingFile, str(path))
        parse_config(file.training, core_training.TrainingConfig, str(path))


def test_overrides_make_sections_that_the_file_leaves_out():
    values = with_overrides({"training": {}}, ["training.augment.noise_sigma=0.1", "loss.per_class.glia.weight=2"])
    assert values == {"training": {"augment": {"noise_sigma": 0.1}, "loss": {"per_class": {"glia": {"weight": 2}}}}}


def test_a_key_of_the_training_needs_no_section_in_front():
    assert with_overrides({"training": {}}, ["seed=4", "run_dir=x"]) == {"training": {"seed": 4}, "run_dir": "x"}


def test_a_misspelt_override_is_named_with_the_right_one(tmp_path, stored):
    path = write_config(tmp_path / "c.yaml", stored)
    with pytest.raises(ConfigError, match=r"augment\.noise_sigm: no such key; did you mean 'noise_sigma'"):
        run_training(path, ["training.augment.noise_sigm=0.1"])
    with pytest.raises(ConfigError, match=r"trainig\.seed.*did you mean 'training'"):
        run_training(path, ["trainig.seed=1"])


def test_refuses_an_override_that_is_no_yaml():
    with pytest.raises(ConfigError, match="no YAML value"):
        with_overrides({"training": {}}, ["training.classes=[a"])


def test_every_third_slice_of_the_train_range_is_labelled(stored):
    volume = load_volume(section(stored, train=[1, 6], choose=[6, 7], labelled_every=3), CLASSES, StorageOptions())
    unknown = (volume.labels_czyx == 255).all(axis=(0, 2, 3))
    assert unknown.tolist() == [True, False, True, True, False, True, False]


def test_refuses_a_labelled_slice_that_is_not_there(stored):
    with pytest.raises(ConfigError, match="slice 7; the volume has 7"):
        load_volume(section(stored, labelled_slices=[3, 7]), CLASSES, StorageOptions())


def test_exports_a_shipped_model(tmp_path):
    weights, card = export_model("phantom", tmp_path / "out.safetensors")
    assert model_header(str(weights)).name == "phantom"
    text = card.read_text()
    assert text.startswith("# phantom\n")
    assert text.count("## Stages") <= 1
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        export_model("phantom", tmp_path / "out.bin")
    with pytest.raises(WeightsError, match="no shipped model"):
        export_model("nothing-here", tmp_path / "out.safetensors")
