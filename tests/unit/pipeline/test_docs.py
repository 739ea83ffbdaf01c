import inspect
from pathlib import Path

import pytest

from pipeline import errors

DOCS = Path(__file__).parents[3] / "docs"
LEAVES = [
    name
    for name, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, errors.Sam4emError) and not item.__subclasses__()
]


@pytest.mark.parametrize("name", LEAVES)
def test_every_error_has_its_mend(name):
    assert f"`{name}`" in (DOCS / "errors.md").read_text(encoding="utf-8")
