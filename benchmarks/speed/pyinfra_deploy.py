# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared with: the steps of plain/site.yml as a deploy of pyinfra. Apps come as ``--data apps=JSON``."""

from __future__ import annotations

from pathlib import Path

from pyinfra import host
from pyinfra.operations import apt, files, git, pip, server, systemd
from pyinfra.operations.util import any_changed

TEMPLATES = Path(__file__).parent / "plain" / "templates"

apt.update(name="Read the package lists", cache_time=86400)
apt.packages(name="Install the packages", packages=["git", "nginx", "python3-venv"])
default = files.link(name="Remove the default site", path="/etc/nginx/sites-enabled/default", present=False)
sites = [default]

for app in host.data.apps:
    name, folder = app["name"], f"/srv/{app['name']}"
    server.user(name=f"{name}: make the user", user=name, group="www-data", home=f"/home/{name}")
    files.directory(name=f"{name}: make the folder", path=folder, user=name, group="www-data", mode="755")
    code = git.repo(
        name=f"{name}: get the code",
        src=app["repository"],
        dest=f"{folder}/code",
        branch=app["version"],
        _su_user=name,
    )
    pip.venv(name=f"{name}: make the environment", path=f"{folder}/venv", python="python3", _su_user=name)
    requirements = pip.packages(
        name=f"{name}: install the requirements",
        requirements=f"{folder}/code/requirements.txt",
        virtualenv=f"{folder}/venv",
        _su_user=name,
    )
    unit = files.template(
        name=f"{name}: write the unit",
        src=str(TEMPLATES / "app.service.j2"),
        dest=f"/etc/systemd/system/{name}.service",
        mode="644",
        app=app,
    )
    systemd.service(
        name=f"{name}: start the app",
        service=f"{name}.service",
        enabled=True,
        running=True,
        daemon_reload=unit.changed,
    )
    systemd.service(
        name=f"{name}: start it anew",
        service=f"{name}.service",
        restarted=True,
        _if=any_changed(code, requirements, unit),
    )
    site = files.template(
        name=f"{name}: write the site",
        src=str(TEMPLATES / "site.conf.j2"),
        dest=f"/etc/nginx/sites-available/{name}.conf",
        mode="644",
        app=app,
    )
    link = files.link(
        name=f"{name}: enable the site",
        path=f"/etc/nginx/sites-enabled/{name}.conf",
        target=f"/etc/nginx/sites-available/{name}.conf",
    )
    files.line(name=f"{name}: name the app in the hosts file", path="/srv/hosts", line=f"127.0.0.1 {app['domain']}")
    sites += [site, link]

systemd.service(name="Reload nginx", service="nginx.service", reloaded=True, _if=any_changed(*sites))
