# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of deployments.py for people: Markdown made of what it measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

OTHERS = "busy with others just before, %"  # a sample of 1 or 2 s, while the benchmark did nothing


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of a Markdown table."""
    head = list(head)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


def by_host(report: dict, part: str) -> Iterator[tuple[str, str, dict]]:
    """(title of the kind, host, what was found) of one part, for all kinds that got so far."""
    for found in report["kinds"].values():
        for host, value in found.get(part, {}).items():
            yield found["title"], host, value


def failures_text(failures: dict[str, int]) -> str:
    return ", ".join(f"{count} {problem}" for problem, count in failures.items()) or "0"


def markdown(report: dict) -> str:
    """The whole report."""
    machine = report["machine"]
    lines = ["# Deployments under load", ""]
    lines += [f"`{report['command']}`, {report['date']}, {report['minutes']} minutes", ""]
    for kind in report["kind_of_hosts"]:
        name = kind.split(":")[0]
        lines.append(f"- {kind}; {', '.join(report['hosts'].get(name, {}).values())}")
    lines.append(
        f"- the machine: {machine['cores']} cores, on which the load, Ansible and both hosts ran side by side; load "
        f"average {machine['load_before']} before; {machine['ansible']}, Python {machine['python']}"
    )
    for title, host, versions in by_host(report, "versions"):
        lines.append(f"- {title}, on {host}: {', '.join(versions)}")
    lines += ["", f"**{len(report['problems'])} problems**" if report["problems"] else "**No check failed.**", ""]
    lines += [f"- {problem}" for problem in report["problems"]] + [""] * bool(report["problems"])
    return "\n".join([*lines, *deployments(report), *latency(report), *times(report), *reload(report)])


def deployments(report: dict) -> list[str]:
    settings = report["settings"]
    lines = ["## Requests during deployments in a row", ""]
    lines += [
        f"{settings['clients']} clients a host, half of them kept alive, half of the requests POST; "
        f"{settings['streams']} streams of 10 s a host in flight at every switch; both hosts at once.",
        "",
    ]
    rows = []
    for found in report["kinds"].values():
        part = found.get("deployments", {"load": {}})
        for host, counts in part["load"].items():
            steps, nginx = part["steps"], part["nginx"][host]
            seen = sum(step["seen"][host] for step in steps)
            wrong = f"{len(counts['missing'])} missing, {len(counts['unexpected'])} unexpected"
            same = "same processes" if nginx["before"] == nginx["after"] else "CHANGED"
            rows.append(
                [
                    found["title"],
                    host,
                    f"{len(steps)}, all seen" if seen == len(steps) else f"{len(steps)}, only {seen} seen",
                    f"{counts['requests']} ({counts['rate']}/s)",
                    failures_text(counts["failures"]),
                    f"{counts['streams_whole']} / {counts['streams_broken']}",
                    f"{len(counts['bodies'])}, {wrong}",
                    f"{counts['p50_ms']} / {counts['p99_ms']}",
                    same,
                    len(part["nginx_errors"][host]),
                    part["others"],
                ]
            )
    head = ["server", "host", "deployments", "requests", "failed", "streams whole / broken", "different answers"]
    return lines + table([*head, "p50 / p99 ms", "nginx", "lines in its error log", OTHERS], rows)


def latency(report: dict) -> list[str]:
    rows = []
    for title, host, found in by_host(report, "latency"):
        values = [" ".join(str(pair[name]["p99_ms"]) for pair in found["pairs"]) for name in ("during", "without")]
        rows.append(
            [title, host, found["during"], found["without"], found["ratio"], *values, found["failed"], found["others"]]
        )
    head = ["server", "host", "p99 during, ms", "without, ms", "ratio", "all during", "all without", "failed", OTHERS]
    lines = ["## p99 during one deployment that builds, and without", "", "Medians of pairs; one host at a time.", ""]
    return lines + table(head, rows)


def times(report: dict) -> list[str]:
    """What deployments and rollbacks took, by change."""
    rows = []
    for found in report["kinds"].values():
        steps = found.get("deployments", {"steps": []})["steps"]
        for change in sorted({step["change"] for step in steps}):
            those = [step for step in steps if step["change"] == change]
            walls = [step["wall"] for step in those]
            row = [found["title"], change, len(those), f"{statistics.median(walls):.1f} (most {max(walls):.1f})"]
            for host in those[0]["hosts"]:
                seconds = [step["hosts"][host]["seconds"] for step in those]
                row.append(f"{statistics.median(seconds):.2f} (most {max(seconds):.2f})")
            rows.append(row)
    hosts = [kind.split(":")[0] for kind in report["kind_of_hosts"]]
    lines = ["## Seconds that deployments and rollbacks took", ""]
    lines += ["Medians, under load. To the traffic: writing the release, its start, the probe and the switch.", ""]
    return lines + table(
        ["server", "change", "times", "whole run, both hosts", *(f"to the traffic, {host}" for host in hosts)], rows
    )


def reload(report: dict) -> list[str]:
    rows = []
    for title, host, found in by_host(report, "reload"):
        clients = [found[name] for name in ("new", "kept", "attentive", "streams")]
        parts = [f"{failures_text(each['failures'])} of {each['requests']}" for each in clients]
        rows.append([title, host, found["reloads"], *parts])
    lines = ["## One reload of nginx: a run that adds an alias, no release", ""]
    lines += ["Failed requests, by what the clients do; 8 clients of each sort.", ""]
    head = ["server", "host", "reloads", "new connections", "kept alive, sending blindly"]
    return lines + table([*head, "kept alive, looking first", "streams"], rows)
