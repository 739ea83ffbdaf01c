import inspect
import re
from pathlib import Path

import pytest

from pipeline import errors

DOCS = Path(__file__).parents[3] / "docs"
TESTS = Path(__file__).parents[2]
LEAVES = [
    name
    for name, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, errors.Sam4emError) and not item.__subclasses__()
]


@pytest.mark.parametrize("name", LEAVES)
def test_every_error_has_its_mend(name):
    assert f"`{name}`" in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_the_tests_that_hold_failures_are_there():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "scaling.md").read_text(encoding="utf-8")))
    assert len(named) > 30
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", code)) == set()
