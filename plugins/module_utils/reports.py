# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules tell people."""

from __future__ import annotations

import re


def unexpected(error):
    """An exception nobody foresaw, without its text, which may tell a value; of a failed system call what and where."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    return type(error).__name__


def failure(app, step, message, output, command="", status=None):
    """A failed app as a result's ``errors`` has it.

    :param output: list of the last lines that the failing command or service wrote
    :param command: what failed: a command, a request or a unit; empty when it is none of them
    :param status: its exit status or HTTP status; None when there is none
    """
    what = f" (`{command}`)" if command and command not in message else ""
    how = f", status {status}" if status is not None and not re.search(rf"(?<![\w-]){status}(?![\w-])", message) else ""
    text = "\n".join([f"{app}: {step}: {message}{how}{what}", *(f"    {line}" for line in output)])
    return {
        "app": app,
        "step": step,
        "message": message,
        "command": command,
        "status": status,
        "output": output,
        "text": text,
    }


def changes(app, before, after, commits, settings, back=False):
    """What differs between an app's live release and the wanted one, as a text for --diff.

    :param commits: lines of commits that come, or with ``back`` go; None when they are not known here
    :param settings: lines on settings
    """
    lines = [f"{app}: {before or 'nothing'} -> {after or 'unknown until deployed'}"]
    if commits is None:
        lines.append("  commits: known when the run has fetched them")
    else:
        lines += [f"  {'-' if back else '+'} {commit}" for commit in commits]
    lines += [f"  ~ {setting}" for setting in settings]
    return "\n".join(lines) + "\n"


def release_line(app, entry):
    """One line on what became of an app in a run; ``entry`` as in the results of app_activate."""
    release = entry["to"] or "unknown until deployed"
    if entry["from"] == entry["to"]:
        mended = f"mended ({'; '.join(entry['mended'])})" if entry["mended"] else "unchanged"
        return f"{app}: {release} {mended}, {entry['url']}"
    took = f" in {entry['seconds']} s" if entry["seconds"] else ""
    commands = ""
    if entry["release_commands"]:
        commands = f" after {' and '.join(f'`{command}`' for command in entry['release_commands'])}"
    elif entry["release_leader"]:
        commands = f" (its release commands are {entry['release_leader']}'s to run)"
    return f"{app}: {entry['from'] or 'nothing'} -> {release}{commands}{took}, {entry['url']}"
