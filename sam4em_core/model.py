"""The network: encode slices, then step along z with an explicit memory state.

Shape suffixes: B streams (or slices), T slices of a window, K classes, C channels, H and W the image side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.adapter import MaskPrompt, PromptAdapter
from sam4em_core.config import EMBEDDING_STRIDE, ModelConfig
from sam4em_core.decoder import TwoStageDecoder
from sam4em_core.encoder import SliceEncoder, SliceFeatures
from sam4em_core.errors import CoreConfigError, ImageShapeError
from sam4em_core.memory_sdf import SdfMemory
from sam4em_core.memory_volume import MemoryState, VolumeMemory, empty_state
from sam4em_core.unet3d import UNet3d


@dataclass(frozen=True)
class StepOutput:
    """The masks of one slice per stream, and what the streams remember after it."""

    coarse_logits_BKHW: Tensor
    """Logits of the coarse decoder, full image resolution."""
    refined_logits_BKHW: Tensor
    """Logits of the refined decoder: the output."""
    state: MemoryState
    """State to hand to the next slice."""


@dataclass(frozen=True)
class WindowOutput:
    """The masks of a window of T slices, and the state after its last slice."""

    coarse_BTKHW: Tensor
    """Logits of the coarse decoder."""
    refined_BTKHW: Tensor
    """Logits of the refined decoder: the output."""
    state: MemoryState
    """State after the last slice."""


class Sam4emNet(nn.Module):
    """SAM2's encoder and mask decoders, a prompt-free adapter, and a memory.

    memory = volume: 3D memory attention, stepped along z (`step`, `forward_window`). memory = sdf: SAM2's memory
    encoder and attention around signed distances, and the U-Net that makes them (`neighborhood`).
    `encoder_origin` says where the encoder's weights come from: `random` until something was trained or loaded.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_origin = "random"
        self.encoder = SliceEncoder(config)
        self.adapter = PromptAdapter(config)
        self.decoder = TwoStageDecoder(config)
        self.memory: VolumeMemory | None = None
        if config.memory == "volume":
            self.memory = VolumeMemory(config)
            self.previous_prompt = MaskPrompt(config)
        self.sdf_memory = SdfMemory(config) if config.memory == "sdf" else None
        self.unet = UNet3d(config.unet) if config.unet is not None else None

    def encode(self, image_B1HW: Tensor) -> SliceFeatures:
        """Encode slices, once each.

        Args:
            image_B1HW: grey values in [0, 1]; H and W multiples of 32.

        Raises:
            ImageShapeError: the image has another rank, or a side is no multiple of 32.
        """
        features: SliceFeatures = self.encoder(image_B1HW)
        return features

    def initial_state(self, streams: int, height: int, width: int, device: torch.device | str = "cpu") -> MemoryState:
        """A state that remembers nothing, for images of height x width pixels."""
        side = (height // EMBEDDING_STRIDE, width // EMBEDDING_STRIDE)
        return empty_state(self.config, streams, side, device)

    def step(
        self,
        features: SliceFeatures,
        state: MemoryState,
        *,
        prompt_drop: Tensor | None = None,
        memory_drop: Tensor | None = None,
        mask_fault: Tensor | None = None,
    ) -> StepOutput:
        """Segment one slice per stream and remember it.

        Args:
            features: encoded slices, one per stream.
            state: what the streams remember; not changed.
            prompt_drop: bool per stream: hide the previous mask from the decoder.
            memory_drop: bool per stream: hide the memory ring.
            mask_fault: bool per stream: remember a wrong mask (see `misplaced`).

        Returns:
            Logits at full resolution, and the next state (the same state for memory = none).

        Raises:
            CoreConfigError: the network looks at signed distances and cannot be stepped.
        """
        if self.sdf_memory is not None:
            raise CoreConfigError("stepping along z: a network with memory: sdf looks at neighbors (`neighborhood`)")
        embedding = features.embedding_BChw
        if self.memory is None:
            coarse, refined = self.decode_alone(features)
            return StepOutput(coarse, refined, state)
        known_B = state.num_filled_B > 0
        if prompt_drop is not None:
            known_B = known_B & ~prompt_drop
        remembered = self.memory.read(embedding, state, memory_drop)
        dense = self.adapter.dense_prompt(state.prompt_BChw, known_B)
        coarse, refined = self._decode(features, remembered, dense)
        mask = functional.avg_pool2d(refined.sigmoid(), 2)
        if mask_fault is not None:
            mask = torch.where(mask_fault.view(-1, 1, 1, 1), misplaced(mask), mask)
        prompt = self.previous_prompt(mask)
        return StepOutput(coarse, refined, self.memory.write(embedding, prompt, state))

    def decode_alone(self, features: SliceFeatures) -> tuple[Tensor, Tensor]:
        """Decode slices without a previous mask: coarse and refined logits, both (B, K, H, W)."""
        embedding = features.embedding_BChw
        return self._decode(features, embedding, self.adapter.no_prompt(embedding))

    def _decode(self, features: SliceFeatures, embedding: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.adapter.class_tokens(embedding)
        masks: tuple[Tensor, Tensor] = self.decoder(features, embedding, dense, tokens)
        return masks

    def forward_window(
        self,
        image_BTHW: Tensor,
        *,
        state: MemoryState | None = None,
        prompt_dropout: float = 0.0,
        memory_dropout: float = 0.0,
        mask_faults: float = 0.0,
        truncate_every: int = 4,
        generator: torch.Generator | None = None,
    ) -> WindowOutput:
        """Segment windows of contiguous slices, in the order given.

        All B * T slices are encoded in one batch; only the decoders and the memory run slice after slice, and for
        memory = none they run in one batch too.

        Args:
            image_BTHW: grey values in [0, 1]; H and W multiples of 32.
            state: state after the slice before the window; None starts with an empty memory.
            prompt_dropout: probability, per stream and slice, that the previous mask is hidden.
            memory_dropout: probability, per stream and slice, that the memory ring is hidden.
            mask_faults: probability, per stream and slice, that a wrong mask is remembered.
            truncate_every: slices after which the gradient through the state is cut; 0 never cuts.
            generator: source of the dropout's random numbers (a CPU generator).

        Raises:
            ImageShapeError: the image has another rank, or a side is no multiple of 32.
        """
        if image_BTHW.dim() != 4:
            raise ImageShapeError(
                f"a window has shape (streams, slices, height, width), found {tuple(image_BTHW.shape)}"
            )
        streams, length, height, width = image_BTHW.shape
        if state is None:
            state = self.initial_state(streams, height, width, image_BTHW.device)
        if self.memory is None:
            out = self.step(self.encode(image_BTHW.reshape(-1, 1, height, width)), state)
            shape = (streams, length, -1, height, width)
            return WindowOutput(out.coarse_logits_BKHW.view(shape), out.refined_logits_BKHW.view(shape), state)
        # Slices of one z lie together, so that a step's features are one contiguous piece.
        features = self.encode(image_BTHW.transpose(0, 1).reshape(-1, 1, height, width))
        coarse, refined = [], []
        for index, slice_features in enumerate(features.chunked(streams)):
            if truncate_every and index and index % truncate_every == 0:
                state = state.detached()
            out = self.step(
                slice_features,
                state,
                prompt_drop=_drawn(streams, prompt_dropout, generator, image_BTHW.device),
                memory_drop=_drawn(streams, memory_dropout, generator, image_BTHW.device),
                mask_fault=_drawn(streams, mask_faults, generator, image_BTHW.device),
            )
            state = out.state
            coarse.append(out.coarse_logits_BKHW)
            refined.append(out.refined_logits_BKHW)
        return WindowOutput(torch.stack(coarse, dim=1), torch.stack(refined, dim=1), state)


def misplaced(mask_BKHW: Tensor) -> Tensor:
    """The same mask half an image away: objects where there are none, and none where they are.

    Training with it now and then teaches the network that what it remembers can be wrong: otherwise one mistake is
    carried along z for as long as the chain lasts.
    """
    return mask_BKHW.roll((mask_BKHW.shape[-2] // 2, mask_BKHW.shape[-1] // 2), dims=(-2, -1))


def _drawn(streams: int, probability: float, generator: torch.Generator | None, device: torch.device) -> Tensor | None:
    """Bool per stream, true with the given probability; None when nothing can be dropped."""
    if probability <= 0:
        return None
    return (torch.rand(streams, generator=generator) < probability).to(device)


def build_model(config: ModelConfig) -> Sam4emNet:
    """Build the network of a config with random weights (seed torch first to repeat them)."""
    # Measured on a CPU with AVX-512: decoding is 1.5 times as fast with the channels last.
    network = Sam4emNet(config)
    for name, child in network.named_children():
        if name != "unet":
            child.to(memory_format=torch.channels_last)
    return network


def count_parameters(module: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)
