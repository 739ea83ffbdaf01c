"""Writes the accuracy tables of `docs/benchmarks.md` from the results, between two marker comments.

    python tests/bench/accuracy/table.py [--document docs/benchmarks.md] [--results FOLDER]

A number stands in a table only if a result says it; a row without a result, or whose recipe has changed since, is
listed below the table as not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import row_digest
from rows import METHODS, Row, Tier, large_tier, small_tier
from sets import REPOSITORY, SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BEGIN = "<!-- accuracy:begin (written by tests/bench/accuracy/table.py) -->"
END = "<!-- accuracy:end -->"
NOT_RUN = "Not run"
_SCORES = {
    "IoU": ("iou", 3),
    "Dice": ("dice", 3),
    "HD95, nm": ("hd95_nm", 0),
    "AP50": ("ap50", 2),
    "AP75": ("ap75", 2),
    "VOI split": ("voi_split_bits", 2),
    "VOI merge": ("voi_merge_bits", 2),
    "z-consistency": ("z_consistency", 3),
}
"""Column -> score and decimals."""
_COSTS = ("start", "parameters", "steps", "windows/s", "data share", "training, min", "whole row, s", "peak, GiB")

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """Rows that differ in the seed alone: one line of a table."""

    rows: tuple[Row, ...]
    """Rows, one per seed."""
    results: tuple[dict[str, Any], ...]
    """Results that are there."""

    @property
    def first(self) -> Row:
        """A row that stands for all."""
        return self.rows[0]

    @property
    def seeds(self) -> str:
        """How many seeds have a result."""
        return f"{len(self.results)} of {len(self.rows)}" if len(self.results) < len(self.rows) else str(len(self.rows))


def main() -> int:
    """Write the tables into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document", type=Path, default=REPOSITORY / "docs/benchmarks.md")
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    text = tables(read_results(arguments.results, row_digest))
    document = arguments.document.read_text(encoding="utf-8")
    arguments.document.write_text(with_tables(document, text), encoding="utf-8")
    sys.stderr.write(f"wrote the tables into {arguments.document}\n")
    return 0


def read_results(folder: Path, digest_of: Callable[[Row, float], str]) -> Results:
    """Read the results that answer today's rows, by row name.

    Args:
        folder: of the JSON files.
        digest_of: digest of a row and its minutes.
    """
    results: Results = {}
    for row in [*small_tier(), *large_tier()]:
        path = folder / f"{row.name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["digest"] == digest_of(row, result["minutes"]):
                results[row.name] = result
    return results


def with_tables(document: str, text: str) -> str:
    """Put the tables between the markers of a document, or at its end where it has none.

    Raises:
        ValueError: one marker is there without the other.
    """
    if (BEGIN in document) != (END in document):
        raise ValueError(f"the document has one of the markers {BEGIN!r} and {END!r} only; put both back, or none")
    part = f"{BEGIN}\n\n{text}\n{END}"
    if BEGIN not in document:
        return f"{document.rstrip()}\n\n{part}\n"
    before, rest = document.split(BEGIN, 1)
    return before + part + rest.split(END, 1)[1]


def tables(results: Results) -> str:
    """All tables as Markdown."""
    sections: list[str] = []
    tiers: tuple[tuple[Tier, list[Row]], ...] = (("S", small_tier()), ("L", large_tier()))
    for tier, rows in tiers:
        for name in dict.fromkeys(row.set for row in rows):
            groups = grouped([row for row in rows if row.set == name], results)
            sections += [f"### Tier {tier}: {SETS[name].title}", "", *_set_section(tier, name, groups), ""]
    return "\n".join([*_preface(results), "", *sections])


def grouped(rows: Iterable[Row], results: Results) -> list[Group]:
    """Gather the seeds of each cell, in the order of the rows."""
    cells: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.method, row.labels_percent), []).append(row)
    return [
        Group(tuple(same), tuple(results[row.name] for row in same if row.name in results)) for same in cells.values()
    ]


def _preface(results: Results) -> list[str]:
    machines = sorted(
        {
            f"{result['machine']['processor']} ({result['machine']['cores']} cores, {result['machine']['gpu']}, "
            f"torch {result['machine']['torch']})"
            for result in results.values()
        }
    )
    commits = sorted({_short(result["git_commit"]) for result in results.values()})
    return [
        "Scores of the report slices alone, from counts over the volume in the image's own voxels; weights and "
        "thresholds were chosen on the choose slices. Mean over seeds, and in brackets the lowest and highest seed. "
        "What the rows are, and how the peers were set: `tests/bench/accuracy/README.md`.",
        "",
        f"Hardware: {'; '.join(machines) or 'none yet'}; one thread per row. `whole row` is wall-clock time, other "
        f"work on the machine and pauses included. Commits: {', '.join(commits) or 'none'}.",
    ]


def _short(commit: str) -> str:
    """First digits of a commit, with its mark."""
    digits, _, mark = commit.partition(" ")
    return f"{digits[:10]} {mark}".rstrip()


def _set_section(tier: Tier, name: str, groups: Sequence[Group]) -> list[str]:
    ran = [group for group in groups if group.results]
    lines: list[str] = []
    for item in SETS[name].classes if ran else ():
        lines += [f"**{item.name}**", "", *_score_table(ran, item.name), ""]
    if ran:
        lines += ["**cost**", "", *_cost_table(ran), ""]
    missing = [f"{METHODS[g.first.method].title} ({g.first.labels_percent} %)" for g in groups if not g.results]
    if missing:
        command = f"`python tests/bench/accuracy/bench.py --tier {tier} --only '{name}_*'`"
        lines += [f"{NOT_RUN} ({command}): {'; '.join(missing)}.", ""]
    return lines[:-1]


def _score_table(groups: Sequence[Group], class_name: str) -> list[str]:
    columns = ["method", "labels", "seeds", *_SCORES]
    lines = [_line(columns), _line(["---"] * len(columns))]
    for group in groups:
        start = [METHODS[group.first.method].title, f"{group.first.labels_percent} %", group.seeds]
        scores = [result["classes"][class_name]["report"] for result in group.results]
        lines.append(_line([*start, *(_cell(scores, *place) for place in _SCORES.values())]))
    return lines


def _cell(scores: Sequence[dict[str, Any]], name: str, decimals: int) -> str:
    values = [score[name] for score in scores if score.get(name) is not None]
    bound = "≥ " if name == "hd95_nm" and any(score.get("hd95_at_least") for score in scores) else ""
    return bound + mean_and_spread(values, decimals)


def mean_and_spread(values: Sequence[float], decimals: int) -> str:
    """Mean, and the lowest and highest value where there is more than one; `-` where there is none."""
    if not values:
        return "-"
    mean = f"{sum(values) / len(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{decimals}f} to {max(values):.{decimals}f})"


def _cost_table(groups: Sequence[Group]) -> list[str]:
    columns = ["method", "labels", *_COSTS, "command"]
    lines = [_line(columns), _line(["---"] * len(columns))]
    for group in groups:
        start = [METHODS[group.first.method].title, f"{group.first.labels_percent} %"]
        lines.append(_line([*start, *_costs(group.results), _command(group)]))
    return lines


def _costs(results: Sequence[dict[str, Any]]) -> list[str]:
    def over(values: Iterable[float], decimals: int) -> str:
        return mean_and_spread(list(values), decimals)

    trainings = [result["training"] for result in results]
    return [
        ", ".join(sorted({_start(training) for training in trainings})),
        f"{results[0]['parameters'] / 1e6:.2f} M",
        over((training["steps"] for training in trainings), 0),
        over((training["windows_per_s"] for training in trainings), 2),
        f"{100 * sum(training['data_fraction'] for training in trainings) / len(trainings):.1f} %",
        over((training["seconds"] / 60 for training in trainings), 1),
        over((sum(result["seconds"].values()) for result in results), 0),
        over((result["peak_resident_gib"] for result in results), 2),
    ]


def _start(training: dict[str, Any]) -> str:
    """Where the weights started."""
    if "weights_of" in training:
        return f"weights of {training['weights_of'].split('_')[1]}"
    start = training["start"]
    random = len(start.get("tensors_random", ()))
    return f"`{start['from']}`, {random} tensors random" if random else str(start["from"])


def _command(group: Group) -> str:
    minutes = sorted({result["minutes"] for result in group.results})
    row = group.first
    pattern = row.name if len(group.rows) == 1 else row.name[: -len(str(row.seed))] + "?"
    return "; ".join(
        f"`python tests/bench/accuracy/bench.py --tier {row.tier} --minutes {value:g} --only '{pattern}'`"
        for value in minutes
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
