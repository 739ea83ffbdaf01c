"""One private Slurm for all tests of this folder."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Before the tests are read: they import it too.
sys.path.insert(0, str(Path(__file__).parent / "doubles"))


import private_slurm


@pytest.fixture(scope="session")
def slurm():
    """Start a Slurm; gives what a client's environment must hold."""
    reason = private_slurm.find_reason()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    # pytest's own folders are closed to other users, and munged runs as user munge.
    folder = Path(tempfile.mkdtemp(prefix="sam4em-slurm-"))
    folder.chmod(0o755)
    with private_slurm.run_slurm(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
    shutil.rmtree(folder)
