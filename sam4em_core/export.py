"""From a run or a checkpoint to one file that stands alone: merged weights and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.errors import CheckpointError
from sam4em_core.header import sha256_of

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader

BEST_FILE = "best.safetensors"
"""What a run directory calls its best checkpoint."""


def export_checkpoint(source: str | Path, target: str | Path, *, base: str | Path | None = None) -> Path:
    """Merge a checkpoint with its base into one safetensors file, and write its model card beside it.

    Args:
        source: a run directory (its best checkpoint is taken) or a checkpoint.
        target: the file to write; must end in .safetensors.
        base: official weights, where the checkpoint only adds to them.

    Returns:
        The model card.

    Raises:
        CheckpointError: the source or its base is unreadable, the target has another suffix, or the disk refuses.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"exporting {source}: {target} must end in .safetensors")
    path = source / BEST_FILE if source.is_dir() else source
    loaded = load_checkpoint(path, base=base)
    header = loaded.header.model_copy(update={"stored": "whole"})
    save_checkpoint(target, loaded.network, header)
    card = target.with_suffix(".md")
    text = _card(header, target) + _sections_of(path.with_suffix(".md"))
    try:
        card.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"writing the model card {card}: {error}") from error
    return card


def _card(header: CheckpointHeader, path: Path) -> str:
    voxel = " x ".join(f"{size:g}" for size in header.working_voxel_size_zyx_nm)
    low, high = header.accepted_voxel_size_nm
    thresholds = ", ".join(f"{name} {value:g}" for name, value in zip(header.classes, header.thresholds, strict=True))
    start = f"{header.base_name or 'another checkpoint'}, sha256 `{header.base_sha256}`"
    facts = {
        "Classes and thresholds": thresholds,
        "Weights": f"{path.stat().st_size / 1e6:.1f} MB, fp16, sha256 `{sha256_of(path)}`",
        "Backbone": header.model.backbone,
        "Starts from": start if header.base_sha256 else "random weights",
        "Works at": f"{voxel} nm; accepts {low:g} to {high:g} nm; z windows of {header.window_slices} slices, "
        f"{header.warm_up_slices} warm-up slices, tiles of {header.tile_side} with an overlap of {header.tile_overlap}",
        **{key.capitalize(): value for key, value in header.card.items()},
    }
    return "\n".join([f"# {header.name}", "", *(f"- **{key}**: {value}" for key, value in facts.items()), "", ""])


def _sections_of(card: Path) -> str:
    """Give the sections of the run's own card: its stages and scores."""
    if not card.is_file():
        return ""
    _, mark, rest = card.read_text(encoding="utf-8").partition("## ")
    return mark + rest
