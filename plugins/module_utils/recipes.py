# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What releases are made of: as planned, or of one that is there, and which of them to go back to."""

from __future__ import annotations

import os
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils.configuration import settings_of
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import read_text
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import parse_environment, render_environment
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import ActivationError


def recipe_of_plan(app, proxy_user, build, files, environment):
    """What a release of a planned app is made of.

    :param proxy_user: the account that its socket is for
    :param build: what app_build returned for it; its commit is None when only the host can resolve it
    :param files: {name: text} of what the release needs beside its environment
    :param environment: {name: value}, secrets included
    """
    return {
        "app": app["name"],
        "stem": f"{build['commit'][:8]}-{app['configuration_hash']}" if build["commit"] else None,
        "build": build["build"],
        "commit": build["commit"],
        "subject": build["subject"],
        "url": app["url"],
        "server": app["server"]["kind"],
        "max_requests": app["server"]["max_requests"],
        "health": app["health"],
        "keep_releases": app["keep_releases"],
        "user": app["user"],
        "proxy_user": proxy_user,
        "path": app["path"],
        "data": app["paths"]["data"],
        "socket": app["socket"],
        "processes": app["processes"],
        "jobs": app["jobs"],
        "settings": settings_of(app),
        "backup": app["services"]["backup"],
        "files": {**files, "environment": render_environment(environment)},
    }


def recipe_of_release(host, name):
    """What a release that is there was made of, and when."""
    recipe = {key: value for key, value in host.release(name).items() if key != "release"}
    directory = os.path.join(host.releases_directory, name)
    files = {}
    for file in os.listdir(directory):
        path = os.path.join(directory, file)
        if file != "release.json" and os.path.isfile(path) and not os.path.islink(path):
            files[file] = read_text(path)
    return {**recipe, "files": files}


def rollback_target(host, wanted=""):
    """Name of the release to go back to.

    :param wanted: a release, its name without suffix, or the beginning of a commit; empty for the good release that the
        live one was deployed over, or else the newest good one before it
    :raises ActivationError: there is none
    """
    live = host.live()
    if live is None:
        raise ActivationError("choose", "no release has had the traffic yet, so there is nothing to go back from")
    records = host.records()
    # what an older version of this collection made does not tell all that it was made of
    good = [name for name, release in records.items() if host.proven(name) and name != live and "socket" in release]
    if not wanted:
        replaced = host.mark(live).get("replaced")
        if replaced in good:
            return replaced
        created = records.get(live, {}).get("created", time.time())
        earlier = [name for name in good if records[name]["created"] < created]
        if not earlier:
            raise ActivationError("choose", "there is no earlier good release to go back to")
        return earlier[-1]

    def fits(name):
        release = records.get(name, {})
        return wanted in (name, release.get("stem")) or release.get("commit", "").startswith(wanted)

    fitting = [name for name in good if fits(name)]
    if fits(live) and wanted not in fitting:
        return live
    if fitting:
        return fitting[-1]
    others = [name for name in records if fits(name)]
    problem = f"{others[-1]} has not proven good" if others else f"{wanted} is not here any more"
    raise ActivationError("choose", f"{problem}; good releases to go back to: {', '.join(good) or 'none'}")


def secrets_in(environment, settings):
    """{"secrets.NAME": value} of what an environment has beside the declared ``env``."""
    return {f"secrets.{name}": value for name, value in environment.items() if f"env.{name}" not in settings}


def secrets_of(host, name):
    """The secret values in a release's environment."""
    environment = parse_environment(read_text(os.path.join(host.releases_directory, name, "environment")) or "")
    return secrets_in(environment, host.release(name).get("settings", {})).values()
