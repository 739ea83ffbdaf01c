import pytest

from pipeline.errors import ConfigError, StoreFull, TrainingError, WeightsError
from pipeline.segmenter import model_header
from pipeline.training import TrainingFile, export_model, run_training
from pipeline.training.spatial_schema import SpatialFile
from sam4em_core import errors as core_errors
from sam4em_core import training as core_training
from sam4em_core.training import errors as training_errors
from sam4em_core.training.spatial_config import SpatialConfig


def test_hands_volumes_and_settings_to_the_core(tmp_path, write_config, monkeypatch):
    seen = {}

    def train(config, volumes, run_dir, *, resume):
        seen.update(config=config, volumes=volumes, run_dir=run_dir, resume=resume)
        return run_dir / "best.safetensors"

    monkeypatch.setattr(core_training, "train", train)
    path = write_config()
    best = run_training(path, ["training.seed=5"], resume=True)
    assert best == tmp_path / "run" / "best.safetensors"
    assert seen["config"].seed == 5
    assert seen["resume"]
    assert [volume.name for volume in seen["volumes"]] == ["v"]
    run_training(path, run_dir=tmp_path / "other")
    assert seen["run_dir"] == tmp_path / "other"


def test_a_misspelt_setting_is_named_with_the_right_one(write_config):
    path = write_config(thraeds=2)
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
def test_errors_of_the_core_become_the_pipelines(write_config, monkeypatch, raised, mapped):
    def train(*_, **__):
        raise raised("what happened")

    monkeypatch.setattr(core_training, "train", train)
    with pytest.raises(mapped, match="what happened"):
        run_training(write_config())


def test_the_shipped_configs_are_valid():
    from pathlib import Path

    from pipeline.config.read import parse_config, read_yaml

    folder = Path(__file__).parents[4] / "configs" / "train"
    paths = sorted(folder.glob("*.yaml"))
    assert paths
    for path in paths:
        document = read_yaml(path)
        if "spatial" in document:
            parse_config(parse_config(document, SpatialFile, str(path)).spatial, SpatialConfig, str(path))
        else:
            file = parse_config(document, TrainingFile, str(path))
            parse_config(file.training, core_training.TrainingConfig, str(path))


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
