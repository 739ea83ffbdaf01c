"""Which parameters a stage trains, and at which rate.

    pretrain, full   every parameter (stage 0, and the comparison to LoRA)
    lora-encoder     stage A: encoder LoRA, stem, fusion, adapter, memory, coarse decoder
    lora-decoder     stage B: refined decoder through its own LoRA, its prompt and skip, detail head
    polish           every parameter, after A and B, at a low rate

The U-Net inside a network with memory: sdf is frozen in every stage; it is trained by itself (target: sdf).
Adapters are merged into the weights when a stage ends, so every stage begins with a plain network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sam4em_core.model import Sam4emNet
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.speed import keep_encoder

if TYPE_CHECKING:
    from torch import nn

    from sam4em_core.training.config import StageConfig
    from sam4em_core.training.forward import Network

_ENCODER = ("encoder.image_encoder.",)
_MEMORY = ("memory.", "previous_prompt.", "sdf_memory.")
_UNET = ("unet.",)
_STAGE_A = ("encoder.stem.", "encoder.fusion.", "adapter.", *_MEMORY, "decoder.coarse.")
_STAGE_B = ("decoder.mask_prompt.", "decoder.up_skip.", "decoder.head.", "decoder.refined.output_")
_LORA = "lora_"


def prepare_stage(network: Network, stage: StageConfig) -> Network:
    """Add the adapters of a stage and mark what trains.

    Args:
        network: a plain network.
        stage: the stage that begins.

    Returns:
        The same network, changed in place.

    Raises:
        TrainingSetupError: LoRA is asked for on an encoder that was never trained, or the rates leave
            nothing to train.
    """
    uses_lora = stage.recipe in ("lora-encoder", "lora-decoder")
    if stage.recipe == "polish" and network.encoder_origin == "random":
        raise TrainingSetupError(
            f"stage {stage.name}: there is nothing to polish yet; set base to a trained model, or put stages before it"
        )
    if uses_lora and network.encoder_origin == "random":
        raise TrainingSetupError(
            f"stage {stage.name}: LoRA on an encoder with random weights learns nothing; set base to a trained "
            "model, or begin with a stage of recipe pretrain"
        )
    if uses_lora and isinstance(network, Sam4emNet):
        _add_adapters(network, stage)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_rate_fraction(name, stage) > 0)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise TrainingSetupError(f"stage {stage.name}: every parameter is frozen; raise a rate fraction")
    return network


def parameter_groups(network: nn.Module, stage: StageConfig) -> list[dict[str, object]]:
    """Sort the trained parameters by rate and by weight decay.

    Vectors and scalars (biases, norms, tokens of one row) are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = stage.learning_rate * _rate_fraction(name, stage)
            decay = stage.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def finish_stage(network: Network) -> Network:
    """Merge a stage's adapters, make every parameter trainable again, and keep what the encoder computes."""
    if isinstance(network, Sam4emNet):
        keep_encoder(network)
    if any(_LORA in name for name, _ in network.named_parameters()):
        _merge_adapters(network)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network


def _rate_fraction(name: str, stage: StageConfig) -> float:
    """Give a parameter's share of the stage's learning rate; 0 freezes it."""
    if name.startswith(_UNET):
        return 0.0
    if stage.recipe in ("pretrain", "full", "polish"):
        if name.startswith(_ENCODER):
            return stage.encoder_rate_fraction
        return stage.memory_rate_fraction if name.startswith(_MEMORY) else 1.0
    if _LORA in name:
        return 1.0
    return float(name.startswith(_STAGE_A if stage.recipe == "lora-encoder" else _STAGE_B))


def _add_adapters(network: Sam4emNet, stage: StageConfig) -> None:
    # peft is imported with the first LoRA stage only: workers that segment never need it.
    from sam4em_core.lora import add_adapter  # noqa: PLC0415

    which: Literal["encoder", "decoder"] = "encoder" if stage.recipe == "lora-encoder" else "decoder"
    add_adapter(network, which, rank=stage.lora_rank, alpha=stage.lora_alpha)


def _merge_adapters(network: nn.Module) -> None:
    from sam4em_core.lora import merge_adapters  # noqa: PLC0415

    merge_adapters(network)
