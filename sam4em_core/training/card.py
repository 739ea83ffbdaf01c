"""The model card: what a model was trained on, how, for how long, and what it scores."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from sam4em_core.header import sha256_of
from sam4em_core.training.state import read_log, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sam4em_core.training.config import TrainingConfig

_LOG_FILE = "log.csv"


def write_card(
    path: Path, weights: Path, config: TrainingConfig, history: list[dict[str, Any]], step: int, seconds: float
) -> None:
    """Write the card as Markdown.

    Args:
        path: the card.
        weights: the checkpoint that it describes.
        config: the run.
        history: validations, as in `scores.json`.
        step: optimizer steps of the run.
        seconds: training time of the run.
    """
    log = path.parent / _LOG_FILE
    rows = read_log(log) if log.exists() else []
    text = "\n".join(
        [
            *_head(config, weights, step, seconds),
            *_stages(config, rows),
            *_scores(history),
        ]
    )
    write_whole(path, lambda place: _write_text(place, text))


def _head(config: TrainingConfig, weights: Path, step: int, seconds: float) -> list[str]:
    size = weights.stat().st_size / 1e6
    voxel = " x ".join(f"{value:g}" for value in config.voxel_size_zyx_nm)
    facts = {
        "Classes": ", ".join(config.classes),
        "Weights": f"{size:.1f} MB, sha256 {sha256_of(weights)}",
        "Starts from": config.base or "random weights",
        **({} if config.memory_base is None else {"Memory starts from": config.memory_base}),
        "Works at": f"{voxel} nm; accepts {config.voxel_size_range_nm[0]:g} to {config.voxel_size_range_nm[1]:g} nm",
        "Training": f"{step} steps, {seconds / 60:.1f} minutes, {config.threads} thread(s), {config.dtype}, "
        f"seed {config.seed}",
        **{key.capitalize(): value for key, value in config.card.items()},
    }
    return [f"# {config.name}", "", *(f"- **{key}**: {value}" for key, value in facts.items()), ""]


def _stages(config: TrainingConfig, rows: list[dict[str, str]]) -> list[str]:
    lines = [
        "## Stages",
        "",
        "| stage | recipe | steps | windows per step | slices | crop | rate | first and last loss | windows/s "
        "| data share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for stage in config.stages:
        own = [row for row in rows if row["stage"] == stage.name]
        if not own:
            continue
        losses = [float(row["loss"]) for row in own]
        edge = max(1, len(losses) // 10)
        speed = statistics.median(float(row["windows_per_s"]) for row in own)
        share = statistics.median(float(row["data_fraction"]) for row in own)
        lines.append(
            f"| {stage.name} | {stage.recipe} | {len(own)} | {stage.batch_windows} | {stage.window_slices} "
            f"| {stage.crop_voxels} | {stage.learning_rate:g} | {statistics.mean(losses[:edge]):.3f}, "
            f"{statistics.mean(losses[-edge:]):.3f} | {speed:.2f} | {100 * share:.1f} % |"
        )
    return [*lines, ""]


def _scores(history: list[dict[str, Any]]) -> list[str]:
    if not history:
        return ["No volume had choose slices: the thresholds are 0.5 and nothing was scored.", ""]
    best = max(history, key=lambda entry: float(entry["mean_iou"]))
    lines = [
        "## Scores on the choose slices",
        "",
        "Counts over all choose slices, in the image's own voxels, through the whole inference chain. These "
        "slices chose the weights and the thresholds, so they flatter; they are no test result.",
        "",
        "| class | threshold | IoU | Dice | after step |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {score['threshold']} | {score['iou']:.4f} | {score['dice']:.4f} | {best['step']} |"
        for name, score in best["classes"].items()
    ]
    return [*lines, ""]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
