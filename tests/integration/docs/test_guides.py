"""The code blocks of the guides: those marked `run` are executed, those marked `not-run` must at least parse.

A mark is a comment above the block: `<!-- run -->` or `<!-- not-run -->`. Blocks of one page share one namespace.
"""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[\w-]+) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if "```python" in path.read_text())


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page}
    text = (DOCS / page).read_text()
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python")
    for block in blocks:
        line = text[: block.start("code")].count("\n")
        code = compile("\n" * line + block["code"], str(DOCS / page), "exec")
        assert block["mark"] in ("run", "not-run"), f"{page}:{line}: the block has no mark"
        if block["mark"] == "run":
            exec(code, namespace)  # noqa: S102
