import pytest

from pipeline.config.schema import Sam4emSegmenter
from pipeline.errors import WeightsError
from pipeline.segmenter import (
    core_errors,
    count_gpus,
    describe_model,
    describe_segmenter,
    model_path,
    shipped_models,
    shipped_unets,
)

VOXEL_NM = (8.0, 8.0, 8.0)


def test_a_model_that_is_not_there_names_the_shipped_ones(tmp_path):
    with pytest.raises(WeightsError, match="shipped models"):
        model_path("no-such-model")
    with pytest.raises(WeightsError, match="no-such-model"):
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="no-such-model"), VOXEL_NM)


def test_every_shipped_file_says_what_it_is():
    assert {"mito-lucchi", "phantom"} <= set(shipped_models())
    assert describe_model("mito-lucchi")["thresholds"]
    assert "phantom-sdf" in shipped_unets()
    assert describe_model("phantom-sdf")["unet"]["tau_nm"] == 256.0


def test_a_unet_by_itself_is_no_segmenter():
    with pytest.raises(WeightsError, match="U-Net of signed distances alone, wanted is a segmenting network"):
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="phantom-sdf"), VOXEL_NM)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model=str(path)), VOXEL_NM)


def test_every_error_of_the_core_has_a_family():
    from sam4em_core import errors as core

    classes = [item for item in vars(core).values() if isinstance(item, type) and issubclass(item, core.CoreError)]
    assert len(classes) > 5
    for item in classes:
        with pytest.raises(Exception, match="loading: broken") as caught, core_errors("loading"):
            raise item("broken")
        assert caught.value.__cause__.__class__ is item
        assert type(caught.value).__module__ == "pipeline.errors"


def test_gpus_are_counted_as_torch_counts_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert count_gpus() == 3
