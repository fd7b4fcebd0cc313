# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules tell people."""

from __future__ import annotations

import posixpath
import re


def unexpected(error):
    """An exception nobody foresaw, without its text, which may tell a value; of a failed system call what and where."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    return type(error).__name__


# What Python says when a file can't be opened or made, and what others say
_REFUSED = re.compile(r"\[Errno (?P<number>13|30)\] [^:\n]*: '(?P<path>[^'\n]+)'")
_READ_ONLY = re.compile("read-only file system|attempt to write a readonly database", re.IGNORECASE)


def sharing_hint(lines, directory, path):
    """What to do about an app that was refused to write into its own code, to end a message with; empty when its output
    does not tell of that.

    :param lines: what it wrote
    :param directory: the app's folder on the host
    :param path: the app's folder in its build, where its processes run
    """
    general = ""
    for line in reversed(lines):
        found = _REFUSED.search(line)
        if found:
            place = re.sub(
                rf"^{re.escape(directory)}/(?:(?:releases/[^/]+|current)/build|builds/[^/]+)/", "", found["path"]
            )
            place = posixpath.normpath(place)
            if path != "." and place.startswith(f"{path}/"):
                place = place[len(path) + 1 :]
            if not place.startswith(("/", "..")):
                folder = posixpath.dirname(place) if posixpath.splitext(place)[1] else place
                if not folder:
                    return (
                        f"; the app may not write {place!r} into its own code: have it write below HOME, or into a"
                        " folder that `shared_paths` names"
                    )
                return f"; the app may not write into its own code: `shared_paths: [{folder}]` gives it that folder"
        if (found and found["number"] == "30") or (not found and _READ_ONLY.search(line)):
            general = "; an app may write below HOME and into the folders that `shared_paths` names, and nowhere else"
    return general


def build_hint(lines):
    """What to do about a build command that was refused to write, to end a message with; empty when it was not.

    :param lines: what it wrote
    """
    if not any(_REFUSED.search(line) or _READ_ONLY.search(line) for line in lines):
        return ""
    return "; a build command may write into the app's own code and below /tmp, and nowhere else"


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
    if entry.get("held"):
        told = "`flask_app_release_commands_done` or `_marker` says"
        commands = f"{entry['release_leader']} has run its release commands"
        return f"{app}: {entry['to'] or 'nothing'} stays, {entry['held']} is held back until {told} that {commands}"
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
