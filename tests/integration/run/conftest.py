import sys
from pathlib import Path

import pytest

DOUBLES = str(Path(__file__).parent / "doubles")
# Worker processes start with the sys.path of the process that starts them.
sys.path.insert(0, DOUBLES)


@pytest.fixture
def marks(tmp_path):
    """How often each task was carried out, by key."""

    def read():
        return {path.name.removeprefix("done-"): path.stat().st_size for path in tmp_path.glob("done-*")}

    return read
