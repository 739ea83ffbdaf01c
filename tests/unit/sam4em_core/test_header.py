import pytest
from pydantic import ValidationError

from sam4em_core.checkpoint import load_unet, save_unet
from sam4em_core.config import UnetConfig
from sam4em_core.errors import CheckpointError
from sam4em_core.header import (
    CheckpointHeader,
    UnetHeader,
    holds_unet,
    parse_header,
    read_checkpoint_header,
    read_unet_header,
    sha256_of,
    unet_factors,
)
from sam4em_core.unet3d import build_unet


def test_json_round_trip_and_digest(tiny_header, tiny_config):
    header = tiny_header(tiny_config())
    again = parse_header(header.to_json(), "memory")
    assert again == header
    assert again.digest() == header.digest()
    assert tiny_header(tiny_config(), warm_up_slices=3).digest() != header.digest()


def test_derived_sizes(tiny_header, tiny_config):
    header = tiny_header(tiny_config())
    assert header.reach_slices == 2
    assert tiny_header(tiny_config(memory="none")).reach_slices == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": ("a", "b")}, "different names"),
        ({"thresholds": ()}, "thresholds"),
        ({"accepted_voxel_size_nm": (9.0, 8.0)}, "backwards"),
        ({"tile_overlap": 33}, "half of tile_side"),
        ({"tile_side": 50}, "tile_side"),
        ({"thresholds": (1.5,)}, "thresholds"),
        ({"tile": 64}, "tile"),
    ],
)
def test_unusable_headers_are_refused(tiny_header, tiny_config, changes, named):
    with pytest.raises(ValidationError, match=named):
        tiny_header(tiny_config(), **changes)


def test_text_that_is_no_header_is_refused():
    with pytest.raises(CheckpointError, match="elsewhere"):
        parse_header("{}", "elsewhere")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf")
    with pytest.raises(CheckpointError, match="No such file"):
        sha256_of(tmp_path / "b")


def test_default_grid_is_that_of_the_shipped_models(tiny_config):
    fields = CheckpointHeader.model_fields
    names = ("window_slices", "warm_up_slices", "tile_side", "tile_overlap", "batch_tiles")
    assert [fields[name].default for name in names] == [20, 4, 256, 32, 2]


def unet_header(**changes):
    values = {"unet": UnetConfig(), "classes": ("mito",), "accepted_voxel_size_nm": (4.0, 20.0)}
    return UnetHeader(**{**values, **changes})


def test_a_unets_file_is_no_models_file(tmp_path):
    path = tmp_path / "unet.safetensors"
    save_unet(path, build_unet(UnetConfig()), unet_header(name="u"))
    assert read_unet_header(path) == unet_header(name="u")
    assert load_unet(path)[0].config == UnetConfig()
    assert holds_unet(path)
    with pytest.raises(CheckpointError, match="U-Net of signed distances alone, wanted is a segmenting network"):
        read_checkpoint_header(path)
    with pytest.raises(CheckpointError, match="another architecture"):
        save_unet(path, build_unet(UnetConfig(tau_nm=99)), unet_header())
    with pytest.raises(ValidationError, match="different names"):
        unet_header(classes=("a", "b"))


def test_the_unets_lattice_is_a_whole_number_of_working_voxels(tiny_header, tiny_config):
    assert unet_factors((10.0, 5.0, 20.0), UnetConfig()) == (2, 4, 1)
    with pytest.raises(ValueError, match="no whole number"):
        unet_factors((8.0, 8.0, 8.0), UnetConfig())
    with pytest.raises(ValidationError, match="no whole number"):
        tiny_header(tiny_config(memory="sdf", unet={}), working_voxel_size_zyx_nm=(12.0, 10.0, 10.0))
    header = tiny_header(tiny_config(memory="sdf", unet={}), working_voxel_size_zyx_nm=(10.0, 10.0, 10.0))
    assert header.reach_slices == 0
