from pathlib import Path

from pipeline.config.document import document_config
from pipeline.config.schema import RunConfig

DOCS = Path(__file__).parents[4] / "docs" / "config.md"


def test_the_page_is_the_schema():
    assert DOCS.read_text(encoding="utf-8") == document_config()


def test_every_section_and_key_is_described():
    text = document_config()
    for name in RunConfig.model_fields:
        assert f"## {name}" in text
    assert "|  |\n" not in text
