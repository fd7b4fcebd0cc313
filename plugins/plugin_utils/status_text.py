# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of all apps as lines for a terminal: a table, and below it what of an app is no matter of one cell."""

from __future__ import annotations

import time

from .status_page import health, printable, status_entries

HEADS = ("APP", "HOST", "RELEASE", "SINCE", "HEALTH", "MEMORY", "WORKERS", "RESTARTS", "COMMIT", "URL")
SHOWN = {"failed": "FAILED", "unreachable": "FAILED"}  # of the words for health, those that are to be seen at once
WIDEST = 40  # characters of a commit's subject
KINDS = {"settled": "earlier release", "failed": "failed release"}


def status_lines(variables, hosts):
    """Tell what the apps are doing.

    :param variables: {host: its variables}, with the registered result of app_info as ``__flask_app_info``
    :param hosts: the hosts to tell of
    :returns: list of lines
    """
    entries = status_entries(variables, hosts)
    rows = [HEADS, *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for entry in entries:
        if entry["app"]:
            told += [f"{entry['app']} on {entry['host']}: {line}" for line in _details(entry)]
    for host in hosts:
        pull = (variables[host].get("__flask_app_info") or {}).get("pull")
        if pull:
            told.append(f"{host}: {_time(pull['started'])}: {pull['text']}")
    return [printable(line) for line in told]


def _row(entry):
    state = SHOWN.get(health(entry), health(entry))
    if not entry["app"]:
        return ("-", entry["host"], "-", "-", state, "-", "-", "-", str(entry["problem"]), "-")
    subject = str(entry["subject"] or entry["problem"] or "-")
    return (
        entry["app"],
        entry["host"],
        entry["release"] or "-",
        _time(entry["since"]) or "-",
        state,
        _memory(entry),
        str(entry["workers"]),
        str(entry["restarts"]),
        subject if len(subject) <= WIDEST else f"{subject[: WIDEST - 1]}…",
        entry["url"] or "-",
    )


def _details(entry):
    if not entry["healthy"]:
        yield entry["problem"]
    for each in entry["processes"]:
        told = f"{each['state']}, {_memory(each)}, {each['restarts']} restarts{_verdict(each)}"
        yield f"process {each['process']}: {told}, {each['unit']}"
    for each in entry["schedules"]:
        told = f"next {_time(each['next']) or 'never'}, last {_time(each['last']) or 'not known'}"
        told += ", running" if each["running"] else ""
        told += f", {each['result']}" if each["result"] else ""
        told += f" (status {each['status']})" if each["status"] else ""
        yield f"schedule {each['schedule']}: {told}{_verdict(each)}, {each['unit']}"
    for each in entry["releases"]:
        if not each["live"]:
            reason = f": {each['reason']}" if each["reason"] else ""
            yield f"{KINDS.get(each['state'], 'unused release')} {each['release']} ({each['subject']}){reason}"


def _verdict(part):
    return "" if part["healthy"] else " (FAILED)"


def _memory(part):
    return f"{part['memory'] / 1048576:.0f} MiB"


def _time(seconds):
    """In the time of this machine; empty when there was none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
