# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release runs with beside its build: which keys of the plan, and which of them differ between two releases."""

from __future__ import annotations

# What a build is made of beside its commit.
BUILD_KEYS = (
    "requirements",
    "extra_packages",
    "require_hashes",
    "index_url",
    "allowed_signers",
    "build_commands",
    "shared_paths",
    "path",
)
# What a release runs with beside its commit. Of what is declared, so that all hosts come to the same name of a release.
# nginx's part (aliases, static files, TLS) makes no new release, nor does when a schedule's command runs.
RELEASE_KEYS = (
    "build_hash",
    "user",
    "domain",
    "entrypoint",
    "env",
    "secret_names",
    "server",
    "limits",
    "sandbox",
    "release_commands",
    "processes",
    "jobs",
    "database",
    "cache",
    "paths",
    "templates",
)


def settings_of(app):
    """{dotted name: value} of the declared configuration of a planned app, such as ``server.threads``. No secrets."""
    keys = {*RELEASE_KEYS, *BUILD_KEYS} - {"build_hash", "secret_names"}
    declared = {key: app[key] for key in keys}
    declared["schedules"] = declared.pop("jobs")
    health = app["health"]
    more = {"python": app["python"]["declared"], "health_path": health["path"], "health_status": health["statuses"]}
    return dict(_flat({**declared, **more}))


def changed_settings(before, after):
    """Names of what differs between two dictionaries of settings, each with what happened to it; sorted by name."""
    lines = []
    for name in sorted({*before, *after}):
        if name not in before:
            lines.append(f"{name} added")
        elif name not in after:
            lines.append(f"{name} removed")
        elif before[name] != after[name]:
            lines.append(f"{name} changed")
    return lines


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
