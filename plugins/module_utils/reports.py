# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules tell people."""

from __future__ import annotations


def failure(app, step, message, output):
    """A failed app as a result's ``errors`` has it.

    :param output: list of the last lines that the failing command or service wrote
    """
    text = "\n".join([f"{app}: {step}: {message}", *(f"    {line}" for line in output)])
    return {"app": app, "step": step, "message": message, "output": output, "text": text}


def release_line(app, entry, started):
    """One line on what became of an app in a run; ``entry`` as in the results of app_activate."""
    release = entry["to"] or "unknown until deployed"
    if entry["from"] == entry["to"]:
        return f"{app}: {release} {'started' if started else 'unchanged'}, {entry['url']}"
    took = f" in {entry['seconds']} s" if entry["seconds"] else ""
    return f"{app}: {entry['from'] or 'nothing'} -> {release}{took}, {entry['url']}"
