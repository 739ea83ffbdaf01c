"""The 3D U-Net that regresses truncated signed distances: four levels, group norms, pooling that respects anisotropy.

    level   1 ──> 2 ──> 3 ──> 4          each arrow halves the axes that `UnetConfig.pools_zyx` names:
            │     │     │     │          z waits until y and x have caught up with its spacing
            1 <── 2 <── 3 <───┘          up: nearest neighbor, joined with the level's own features

Linear output, signed distance / tau, not clipped: a clipped output has no gradient where it is most wrong. Whoever uses
it clips it to [-1, 1].
Source: Cicek et al. 2016, 3D U-Net. Suffixes: N patches, C channels, D, H, W the patch.
"""

import itertools
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.config import Factors, UnetConfig
from sam4em_core.errors import ImageShapeError

# At least two channels per group: a patch may be one voxel at the deepest level, and one value has no spread.
_LARGEST_GROUPS = 8


class Convolution(nn.Conv3d):
    """3 x 3 x 3, the size stays; by oneDNN where torch by itself would not: up to five times faster for one patch.

    Torch leaves oneDNN out where batch x channels x depth x height is at most 20480, which is most levels of a patch.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """See `torch.nn.Conv3d`."""
        is_plain = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_grad_enabled()
        if not (is_plain and torch.backends.mkldnn.is_available()):
            return super().forward(input)
        ones = (1, 1, 1)
        found: Tensor = torch.mkldnn_convolution(input, self.weight, None, ones, ones, ones, 1)
        return found


class SettledNorm(nn.GroupNorm):
    """GroupNorm that learns with the statistics of the patch at hand, and infers with settled ones (`settle`).

    A patch without an object has other statistics than one with many, and with its own its zero level lies elsewhere:
    the same voxel would be inside or outside by what else its patch happens to hold.
    """

    mean: Tensor
    """Mean of every group's inputs."""
    variance: Tensor
    """Variance of every group's inputs."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        self.register_buffer("mean", torch.zeros(groups))
        self.register_buffer("variance", torch.ones(groups))

    def forward(self, input: Tensor) -> Tensor:
        """See `torch.nn.GroupNorm`."""
        if self.training:
            return super().forward(input)
        width = self.num_channels // self.num_groups
        scale = self.weight * torch.rsqrt(self.variance + self.eps).repeat_interleave(width)
        shift = self.bias - self.mean.repeat_interleave(width) * scale
        return torch.addcmul(shift[:, None, None, None], input, scale[:, None, None, None])


class UNet3d(nn.Module):
    """Grey patches to signed distances.

    `encoder_origin` says where the weights come from: `random` until something was trained or loaded.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_origin = "random"
        widths = config.widths
        self.pools = config.pools_zyx
        self.down = nn.ModuleList(
            _double(before, width) for before, width in zip((1, *widths[:-1]), widths, strict=True)
        )
        # Fewer channels before there are more voxels: half the time and memory of the finest level.
        self.narrow = nn.ModuleList(nn.Conv3d(below, width, 1) for width, below in itertools.pairwise(widths))
        self.up = nn.ModuleList(_double(2 * width, width) for width in widths[:-1])
        self.out = nn.Conv3d(widths[0], config.num_classes, 1)

    def forward(self, image_N1DHW: Tensor) -> Tensor:
        """Regress signed distance / tau, (N, classes, D, H, W), not clipped.

        Args:
            image_N1DHW: grey values in [0, 1]; D, H and W multiples of `UnetConfig.multiple_zyx`.

        Raises:
            ImageShapeError: the patch has another rank, or a side is no such multiple.
        """
        _require_patch(image_N1DHW, self.config.multiple_zyx)
        x = image_N1DHW - 0.5
        kept = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.pools):
                kept.append(x)
                x = functional.avg_pool3d(x, self.pools[level])
        for level in reversed(range(len(self.pools))):
            grown = functional.interpolate(self.narrow[level](x), size=kept[level].shape[2:], mode="nearest")
            x = self.up[level](torch.cat((kept[level], grown), dim=1))
        field: Tensor = self.out(x)
        return field


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_single(before, after), *_single(after, after))


def _single(before: int, after: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return (
        Convolution(before, after),
        SettledNorm(min(_LARGEST_GROUPS, after // 2), after),
        nn.ReLU(inplace=True),
    )


def _require_patch(image_N1DHW: Tensor, multiple_zyx: Factors) -> None:
    shape = tuple(image_N1DHW.shape)
    if len(shape) != 5 or shape[1] != 1:
        raise ImageShapeError(f"regressing distances: found shape {shape}, expected (patches, 1, z, y, x)")
    if any(side % multiple or side == 0 for side, multiple in zip(shape[2:], multiple_zyx, strict=True)):
        raise ImageShapeError(
            f"regressing distances: found a patch of {shape[2:]} voxels; it must be a multiple of {multiple_zyx}"
        )


def build_unet(config: UnetConfig) -> UNet3d:
    """Build the network of a config with random weights (seed torch first to repeat them)."""
    return UNet3d(config)


@torch.no_grad()
def settle(network: UNet3d, patches_N1DHW: Iterable[Tensor]) -> None:
    """Give every norm of a network the mean statistics of many patches, and leave it in eval mode.

    Args:
        network: what infers with them from now on.
        patches_N1DHW: grey values as in a segmentation, one at least.
    """
    norms = [module for module in network.modules() if isinstance(module, SettledNorm)]
    sums = [torch.zeros(2, norm.num_groups, dtype=torch.float64) for norm in norms]
    hooks = [
        norm.register_forward_pre_hook(partial(_add_moments, total)) for norm, total in zip(norms, sums, strict=True)
    ]
    counted = 0
    network.train()
    for patch in patches_N1DHW:
        network(patch)
        counted += len(patch)
    for hook in hooks:
        hook.remove()
    for norm, total in zip(norms, sums, strict=True):
        mean, square = total / counted
        norm.mean.copy_(mean)
        norm.variance.copy_(square - mean.square())
    network.eval()


def _add_moments(total: Tensor, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add mean and mean square of every group of every patch."""
    groups = inputs[0].reshape(len(inputs[0]), total.shape[1], -1).float()
    total += torch.stack((groups.mean(-1), groups.square().mean(-1))).sum(1).double().cpu()
