#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""report.py speed.json: write speed.md, speed.png and speed.svg beside it, and print the first."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

PLAIN = "plain playbook"


def median(rows: list[dict], what: str, size: int, who: str) -> float | None:
    """The median of one thing; None when it was not measured."""
    for row in rows:
        if (row["what"], row["size"], row["who"]) == (what, size, who):
            return statistics.median(row["values"])
    return None


def table(found: dict) -> list[str]:
    """Lines of Markdown."""
    rows = found["rows"]
    lines = [
        "# Speed",
        "",
        f"Measured on {found['date']} on {found['cores']} cores; {'; '.join(found['test hosts'])}.",
        "",
        "| what | size | who | min | median | max | unit | × empty play | × plain playbook |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["what"], row["size"])):
        values = row["values"]
        middle = statistics.median(values)
        cells = [row["what"], row["size"], row["who"]]
        cells += [f"{each:.4g}" for each in (min(values), middle, max(values))] + [row["unit"]]
        for baseline in ("empty play", PLAIN):
            other = median(rows, row["what"], row["size"], baseline)
            cells.append(f"{middle / other:.2f}" if other and row["who"] != baseline else "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def slopes(rows: list[dict]) -> list[str]:
    """Lines of Markdown: what one more app, or one more host, adds between the shortest and the longest list."""
    lines = ["", "| what | who | from | to | one more adds |", "|---|---|---|---|---|"]
    for what in ("nothing changed", "nothing changed, one app"):
        for who in dict.fromkeys(row["who"] for row in rows if row["what"] == what):
            sizes = sorted(row["size"] for row in rows if (row["what"], row["who"]) == (what, who))
            few, many = sizes[0], sizes[-1]
            if few < many and who != "empty play":
                more = median(rows, what, many, who) - median(rows, what, few, who)
                lines.append(f"| {what} | {who} | {few} | {many} | {more / (many - few):.3f} s |")
    return lines


def draw(found: dict, path: Path) -> None:
    """One small picture for each thing that was measured for several sizes, and one of the requests."""
    rows = found["rows"]
    curves = ("nothing changed", "first deployment", "new commit until it answers", "memory by app")
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7.5), layout="constrained")
    for axis, what in zip(axes.flat, curves, strict=False):
        for who in dict.fromkeys(row["who"] for row in rows if row["what"] == what):
            mine = sorted(
                (row for row in rows if (row["what"], row["who"]) == (what, who)), key=lambda row: row["size"]
            )
            sizes, values = [row["size"] for row in mine], [row["values"] for row in mine]
            line = axis.plot(sizes, [statistics.median(each) for each in values], marker="o", label=who)
            axis.fill_between(
                sizes, list(map(min, values)), list(map(max, values)), alpha=0.2, color=line[0].get_color()
            )
        unit = next((row["unit"] for row in rows if row["what"] == what), "")
        axis.set(title=f"{what} ({unit})", xlabel="apps", ylim=(0, None))
        if what != "memory by app":
            axis.set_yscale("symlog", linthresh=10)
        axis.legend(fontsize="small")
    for axis, what in zip(axes.flat[len(curves) :], ("requests a second", "nothing changed, one app"), strict=True):
        mine = [row for row in rows if row["what"] == what]
        labels = [f"{row['size']}" if row["who"] == "hosts" else row["who"] for row in mine]
        middles = [statistics.median(row["values"]) for row in mine]
        errors = [[m - min(r["values"]) for m, r in zip(middles, mine, strict=True)]]
        errors += [[max(r["values"]) - m for m, r in zip(middles, mine, strict=True)]]
        axis.bar(labels, middles, yerr=errors if mine else None, capsize=4)
        axis.set(title=f"{what} (s), by hosts" if "one app" in what else what)
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=110)


def main() -> None:
    path = Path(sys.argv[1])
    found = json.loads(path.read_text())
    lines = table(found) + slopes(found["rows"])
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    draw(found, path)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
