"""The run directory: what lies in it, what a run is, and whether a resume belongs to it.

What an undisturbed run leaves:

    config.json      the resolved config with its digest, the seed, digests of code, data and base, versions;
                     a resume with another config or other data is refused
    log.csv          one row per step
    tensorboard/     the same as curves
    scores.json      one entry per validation
    pictures/        worst and best slice of the last and of the best validation: image, truth, prediction
    state.pt         what a killed run resumes from, written whole
    best.safetensors the averaged weights that scored best on the choose slices, and best.md, their card
    last.safetensors the averaged weights of the last validation
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.state import make_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sam4em_core.training.config import TrainingConfig

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
CONFIG_FILE = "config.json"
LOG_FILE = "log.csv"
BOARD_FOLDER = "tensorboard"


def config_digest(config: TrainingConfig) -> str:
    """Digest of everything that changes the result, as 64 hex digits."""
    values = config.model_dump(mode="json", exclude={"card"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def open_run(config: TrainingConfig, run_dir: Path, origin: dict[str, Any]) -> None:
    """Make the run directory and write what the run is.

    Args:
        config: the run.
        run_dir: a new directory, or one whose run was killed before its first state: that one begins again.
        origin: what `provenance.describe_origin` gave.

    Raises:
        TrainingSetupError: the directory holds a run.
        TrainingDiskError: it cannot be written.
    """
    if (run_dir / STATE_FILE).exists():
        raise TrainingSetupError(
            f"the run directory {run_dir} holds a run already; resume it, or choose another directory"
        )
    make_folder(run_dir)
    values = config.model_dump(mode="json")
    document = {"digest": config_digest(config), "seed": config.seed, **origin, "config": values}
    text = json.dumps(document, indent=2)
    write_whole(run_dir / CONFIG_FILE, lambda place: _write_text(place, text))


def check_resumable(config: TrainingConfig, run_dir: Path, origin: dict[str, Any]) -> None:
    """Refuse to resume another run; other code is only said.

    Args:
        config: the run as it is asked for now.
        run_dir: where the run lies.
        origin: what `provenance.describe_origin` gives now.

    Raises:
        TrainingSetupError: there is no state, or config, data or base are others.
    """
    path = run_dir / CONFIG_FILE
    if not path.exists() or not (run_dir / STATE_FILE).exists():
        raise TrainingSetupError(f"there is no state in {run_dir} to resume; start without resume")
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["digest"] != config_digest(config):
        now, then = config.model_dump(mode="json"), stored["config"]
        changed = sorted(key for key in now if key != "card" and now[key] != then.get(key))
        raise TrainingSetupError(
            f"resuming {run_dir}: the config has changed in {', '.join(changed) or 'keys that are gone'}; "
            "put it back, or start a new run directory"
        )
    if stored["data_sha256"] != origin["data_sha256"]:
        names = {*stored["data_sha256"], *origin["data_sha256"]}
        changed = sorted(n for n in names if stored["data_sha256"].get(n) != origin["data_sha256"].get(n))
        raise TrainingSetupError(
            f"resuming {run_dir}: the voxels, labels or splits of {', '.join(changed)} are others than when the run "
            "began; put them back, or start a new run directory"
        )
    files = (
        ("base_sha256", "base", config.base),
        ("sdf_sha256", "U-Net", config.sdf),
        ("memory_base_sha256", "memory's base", config.memory_base),
    )
    for key, what, file in files:
        if stored.get(key, "") != origin[key]:
            raise TrainingSetupError(
                f"resuming {run_dir}: the {what} {file} is another file than when the run began (sha256 "
                f"{stored.get(key, '')}); put that one back, or start a new run directory"
            )
    if stored["code_sha256"] != origin["code_sha256"]:
        logger.warning("resuming %s with other code than it began with: losses may differ from then on", run_dir)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
