import torch

from sam4em_core.decoder import ClassMaskDecoder, TwoStageDecoder
from sam4em_core.encoder import SliceFeatures


def _inputs(channels=64, classes=2):
    features = SliceFeatures(
        torch.randn(2, channels, 8, 8),
        torch.randn(2, channels // 4, 16, 16),
        torch.randn(2, channels // 8, 32, 32),
        torch.rand(2, 1, 64, 64),
    )
    return features, torch.zeros(2, channels, 8, 8), torch.randn(2, classes, channels)


def test_one_mask_per_class_at_full_resolution(tiny_config):
    decoder = TwoStageDecoder(tiny_config(num_classes=2))
    features, dense, tokens = _inputs()
    coarse, refined = decoder(features, features.embedding_BChw, dense, tokens)
    assert coarse.shape == refined.shape == (2, 2, 64, 64)


def test_the_refined_mask_teaches_the_coarse_decoder(tiny_config):
    """Through the soft mask prompt and the up-embedding skip; no gate sets the gradient to zero."""
    decoder = TwoStageDecoder(tiny_config(num_classes=2))
    features, dense, tokens = _inputs()
    decoder(features, features.embedding_BChw, dense, tokens)[1].square().mean().backward()
    silent = [name for name, p in decoder.coarse.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert [name for name in silent if "k_proj.bias" not in name] == []


def test_a_hopeless_mask_still_has_a_gradient(tiny_config):
    """SAM2's object-score gate would set these logits to -1024 and their gradient to zero."""
    decoder = ClassMaskDecoder(tiny_config(num_classes=2))
    torch.nn.init.constant_(decoder.class_bias, -50.0)
    features, dense, tokens = _inputs()
    logits, _ = decoder(features.embedding_BChw, dense[:1], tokens, features.skip4, features.skip2)
    assert logits.max() < -10
    logits.sum().backward()
    assert decoder.class_bias.grad.abs().min() > 0


def test_classes_are_independent(tiny_config):
    """A sigmoid per class: raising one class lowers no other."""
    decoder = ClassMaskDecoder(tiny_config(num_classes=2))
    features, dense, tokens = _inputs()
    with torch.no_grad():
        before, _ = decoder(features.embedding_BChw, dense[:1], tokens, features.skip4, features.skip2)
        decoder.class_bias[0, 0] += 3.0
        after, _ = decoder(features.embedding_BChw, dense[:1], tokens, features.skip4, features.skip2)
    assert torch.equal(before[:, 1], after[:, 1])
    torch.testing.assert_close(after[:, 0], before[:, 0] + 3.0)
