import pytest

from pipeline.errors import ConfigError
from pipeline.phantom import PhantomSpec


def test_noise_falls_with_the_size_of_the_voxel():
    assert PhantomSpec(noise_sigma=10.0).noise_grey == pytest.approx(10.0)
    assert PhantomSpec(noise_sigma=10.0, voxel_size_zyx_nm=(5.0, 10.0, 10.0)).noise_grey == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape_zyx": (0, 5, 5)}, "shape"),
        ({"voxel_size_zyx_nm": (5.0, 5.0, 0.0)}, "voxel size"),
        ({"voxel_size_zyx_nm": (5.0, 5.0, float("nan"))}, "voxel size"),
        ({"missing_section_fraction": 1.5}, "missing_section_fraction"),
        ({"noise_sigma": -1.0}, "noise_sigma"),
        ({"section_jitter_nm": 51.0}, "section_jitter_nm"),
    ],
)
def test_refuses_what_means_nothing(change, message):
    with pytest.raises(ConfigError, match=message):
        PhantomSpec(**change)
