"""The code blocks of the guides: `run` is executed, `needs-data` too (on real data where it is), `not-run` must parse.

A mark is a comment above the block: `<!-- run -->`. Blocks of one page share a folder; Python blocks also a namespace.
Variables of the shell are gone after each block. YAML is parsed.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[\w-]+) -->\n)?```(?P<language>python|bash|yaml)\n(?P<code>.*?)^```$", re.M | re.S
)
FENCE = re.compile(r"^ *```(python|bash|yaml)$", re.M)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if FENCE.search(path.read_text(encoding="utf-8")))
MARKS = ("run", "needs-data", "not-run")
# Where real volumes may lie: beside the repository, as the configs of the trainings have it.
DATA = Path(os.environ.get("SAM4EM_DATA", ROOT.parent / "shared" / "data"))


# A page may start several runs with worker processes of their own.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page}
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == len(FENCE.findall(text)), f"{page}: a block is indented or not closed"
    for block in blocks:
        where = f"{page}:{text[: block.start('code')].count(chr(10))}"
        if block["language"] == "yaml":
            assert yaml.safe_load(block["code"]), where
            continue
        assert block["mark"] in MARKS, f"{where}: the block has no mark"
        if block["language"] == "python":
            run_python(block, where, text, namespace)
        else:
            run_shell(block["code"], where, only_parse=block["mark"] == "not-run", folder=tmp_path)


def run_python(block, where, text, namespace):
    line = text[: block.start("code")].count("\n")
    code = compile("\n" * line + block["code"], where, "exec")
    if block["mark"] != "not-run":
        exec(code, namespace)  # noqa: S102


def run_shell(code, where, *, only_parse, folder):
    """Run a block as a user would: stop at the first command that fails."""
    shim = folder / ".bin" / "sam4em"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline.cli "$@"\n')
    shim.chmod(0o755)
    environment = {**os.environ, **data_variables(), "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    options = ["-n"] if only_parse else ["-euo", "pipefail"]
    done = subprocess.run(
        ["bash", *options, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def data_variables():
    """Name a real volume where one is, else the phantom that a page has made."""
    real = DATA / "lucchi_pp_train.zarr" / "raw"
    if real.is_dir():
        return {"IMAGE": f"{real}/0", "MODEL": "mito-lucchi", "ROI": "0:20,0:192,0:192"}
    return {"IMAGE": "tissue/image.zarr", "MODEL": "phantom", "ROI": "0:16,0:96,0:96"}


def test_every_guide_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in DOCS.glob("*.md") if f"docs/{path.name}" not in readme]
    assert missing == []


def test_links_between_pages_lead_somewhere():
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]
    broken = []
    for page in pages:
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
        local = [target for target in targets if not target.startswith(("http://", "https://"))]
        broken += [f"{page.name}: {target}" for target in local if not (page.parent / target).exists()]
    assert broken == []


def test_every_test_that_the_table_of_features_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (DOCS / "features.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_citation_has_what_its_schema_wants():
    """Source: Citation File Format 1.2.0, required keys and types."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    version = re.search(r'__version__ = "([\d.]+)"', (ROOT / "pipeline" / "__init__.py").read_text(encoding="utf-8"))
    assert citation["version"] == version[1]
    for work in (citation, *citation["references"]):
        assert work["authors"]
        assert all({"name", "family-names"} & author.keys() for author in work["authors"])
        assert work["title"]
    for reference in citation["references"]:
        assert reference["type"] in ("article", "conference-paper", "data", "software")
        assert all(item["type"] in ("doi", "url", "swh", "other") for item in reference.get("identifiers", []))
