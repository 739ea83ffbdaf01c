"""The learning rate of a step: linear warm-up, then half a cosine."""

from __future__ import annotations

import math


def rate_factor(step: int, progress: float, warmup_steps: int, final_fraction: float) -> float:
    """Give the factor on a stage's learning rate that holds during one step.

    Args:
        step: index of the step in its stage; the first is 0 and already has a rate above 0.
        progress: share of the stage that is over, in [0, 1].
        warmup_steps: steps of linear rise; step `warmup_steps - 1` is the first at the full rate.
        final_fraction: factor at the end of the stage.
    """
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return rise * (final_fraction + (1.0 - final_fraction) * cosine)


def stage_progress(step: int, steps: int, elapsed_minutes: float, limit_minutes: float | None) -> float:
    """Give the share of a stage that is over, by steps or by its time limit, whichever is further.

    Args:
        step: index of the step in its stage.
        steps: steps of the stage.
        elapsed_minutes: wall-clock time since the stage began.
        limit_minutes: its limit; none counts steps alone.
    """
    by_steps = step / steps
    if limit_minutes is None:
        return by_steps
    return min(1.0, max(by_steps, elapsed_minutes / limit_minutes))
