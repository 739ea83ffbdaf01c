"""The report of a run as one HTML page that stands alone: no script, no network; pictures lie in it.

Everything comes in as plain values (`ReportPage`); nothing here knows a run directory.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

_PNG: Final = b"\x89PNG"
STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #dfe3e8; --paper: #fff; --card: #f6f7f9;
  --good: #1a7f4b; --bad: #b3261e; --warn: #9a6700;
  --c1: #2f6fde; --c2: #d9622b; --c3: #2a9d6f; --c4: #8a4fd0; --c5: #c2a000; --c6: #c23b7a; --c7: #3aa6b9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa5b1; --line: #333a42; --paper: #14171a;
  --card: #1d2125; --good: #4cc38a; --bad: #ff7b72; --warn: #d9a32b; --c1: #6ea3ff; --c2: #ff9a66; --c3: #5fd0a0;
  --c4: #bb8cff; --c5: #e2c541; --c6: #f07fb0; --c7: #6fd3e3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 44px 0 12px; padding-top: 16px; border-top: 1px solid var(--line); }
p { margin: 8px 0; } .soft, figcaption { color: var(--soft); font-size: .875rem; }
.pill { display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: .8rem; font-weight: 600;
  border: 1px solid currentColor; margin-right: 6px; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tile { background: var(--card); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .82rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 16px;
  align-items: start; }
figure { margin: 0; } img { max-width: 100%; height: auto; display: block; border-radius: 6px; background: #000; }
.wide img { background: #fff; } .wide { margin: 12px 0; overflow-x: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.long { white-space: normal; text-align: left; overflow-wrap: anywhere; }
.pairs td:last-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.pairs td:first-child { width: 30%; }
svg { width: 100%; height: auto; display: block; } .chart { margin: 8px 0 16px; }
.tick { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .85rem; color: var(--soft); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
pre { background: var(--card); padding: 14px; border-radius: 10px; overflow: auto; font-size: .8rem; line-height: 1.45;
  max-height: 480px; }
details { margin: 10px 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 48px; color: var(--soft); font-size: .82rem; }
@media (max-width: 560px) { main { padding: 20px 14px 48px; } h1 { font-size: 1.35rem; }
  .tiles { grid-template-columns: 1fr 1fr; } .chart { overflow-x: auto; } .chart svg { min-width: 520px; }
  .pairs tr { display: block; padding: 6px 0; border-bottom: 1px solid var(--line); }
  .pairs td { display: block; border: 0; padding: 0; text-align: left; width: auto !important; }
  .pairs td:first-child { color: var(--soft); font-size: .82rem; } }
@media print { h2, figure, .tile { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Picture:
    """A picture that lies in the page."""

    caption: str
    """Below it."""
    data: bytes
    """PNG or JPEG."""
    is_wide: bool = False
    """Shown in a row of its own, on white."""


@dataclass(frozen=True)
class Section:
    """A part of the page: whatever of it is there is shown in the order of the fields."""

    title: str
    """Its heading."""
    text: str = ""
    """Plain words."""
    tiles: Mapping[str, str] = field(default_factory=dict)
    """What is counted -> the number."""
    pictures: Sequence[Picture] = ()
    """Side by side."""
    charts: Sequence[str] = ()
    """SVG of `pipeline.viewer.charts`."""
    rows: Sequence[Mapping[str, Any]] = ()
    """A table; the first column names the row."""
    pairs: Mapping[str, Any] = field(default_factory=dict)
    """Names and values."""
    listing: Mapping[str, str] = field(default_factory=dict)
    """Title -> text in a fixed font, folded up."""


@dataclass(frozen=True)
class ReportPage:
    """All that the page says."""

    title: str
    """What was segmented."""
    subtitle: str
    """One line below it."""
    states: Sequence[tuple[str, str]]
    """Words on the state, each with `good`, `bad` or `warn`."""
    tiles: Mapping[str, str]
    """The figures that one looks for first."""
    sections: Sequence[Section]
    """The rest."""
    footer: str
    """Last line."""


def write_page(page: ReportPage) -> str:
    """Write the page as HTML."""
    pills = "".join(f'<span class="pill {escape(tone)}">{escape(word)}</span>' for word, tone in page.states)
    body = "".join(_section(section) for section in page.sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(page.title)}</title><style>{STYLE}</style></head><body><main>'
        f'<header><h1>{escape(page.title)}</h1><p class="soft">{escape(page.subtitle)}</p><p>{pills}</p>'
        f"{_tiles(page.tiles)}</header>{body}<footer>{escape(page.footer)}</footer></main></body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    parts.append(_tiles(section.tiles))
    small = [_figure(picture) for picture in section.pictures if not picture.is_wide]
    if small:
        parts.append(f'<div class="pictures">{"".join(small)}</div>')
    parts += [_figure(picture) for picture in section.pictures if picture.is_wide]
    parts += section.charts
    parts.append(_table(section.rows))
    if section.pairs:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{show(value)}</td></tr>" for name, value in section.pairs.items()
        )
        parts.append(f'<div class="table"><table class="pairs">{rows}</table></div>')
    for title, text in section.listing.items():
        parts.append(f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>")
    parts.append("</section>")
    return "".join(parts)


def _tiles(tiles: Mapping[str, str]) -> str:
    if not tiles:
        return ""
    items = (
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in tiles.items()
    )
    return f'<div class="tiles">{"".join(items)}</div>'


def _figure(picture: Picture) -> str:
    kind = "png" if picture.data.startswith(_PNG) else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(picture.data).decode()}"
    wide = ' class="wide"' if picture.is_wide else ""
    caption = escape(picture.caption)
    return f'<figure{wide}><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_long(row.get(name))}>{show(row.get(name))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _long(value: Any) -> str:
    return ' class="long"' if isinstance(value, str) and len(value) > 40 else ""


def show(value: Any) -> str:
    """Write a value for people, safe to stand in HTML."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(item) for item in value)
    return escape(str(value))
