import pytest
import torch

from sam4em_core.encoder import SliceEncoder
from sam4em_core.errors import ImageShapeError


def test_shapes(tiny_config):
    features = SliceEncoder(tiny_config())(torch.rand(2, 1, 96, 96))
    shapes = [tuple(t.shape) for t in features.tensors()]
    assert shapes == [(2, 64, 12, 12), (2, 16, 24, 24), (2, 8, 48, 48), (2, 1, 96, 96)]


@pytest.mark.parametrize("shape", [(1, 1, 80, 80), (1, 3, 64, 64), (1, 64, 64), (1, 1, 0, 0)])
def test_images_that_would_be_computed_wrongly_are_refused(tiny_config, shape):
    with pytest.raises(ImageShapeError, match="encoding slices"):
        SliceEncoder(tiny_config())(torch.rand(shape))


def test_slices_are_encoded_by_themselves(tiny_config):
    encoder = SliceEncoder(tiny_config()).eval()
    images = torch.rand(3, 1, 64, 64)
    changed = images.clone()
    changed[1] = 0.25
    before, after = encoder(images), encoder(changed)
    for a, b in zip(before.tensors(), after.tensors(), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[2], b[2])
        assert not torch.equal(a[1], b[1])


def test_chunks_are_the_same_slices_again(tiny_config):
    features = SliceEncoder(tiny_config())(torch.rand(6, 1, 64, 64))
    chunks = features.chunked(2)
    assert len(chunks) == 3
    assert torch.equal(chunks[2].skip2, features.skip2[4:])


def test_a_wide_image_is_seen_the_way_it_lies(tiny_network):
    """Height and width are not confused anywhere: a spot on the right changes the right, not the bottom."""
    network = tiny_network(memory="none")
    image = torch.full((1, 1, 64, 192), 0.5)
    spot = image.clone()
    spot[..., 28:36, 160:168] = 1.0
    with torch.inference_mode():
        change = (network.encode(spot).embedding_BChw - network.encode(image).embedding_BChw).abs().sum(dim=1)[0]
    assert change.shape == (8, 24)
    assert change[3:5, 19:22].mean() > 4 * change[:, :8].mean()
