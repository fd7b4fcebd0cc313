# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift: somebody changes a host by hand. The next run puts it right, reports just that, and needs no new release."""

from __future__ import annotations

from dataclasses import dataclass

from report import Part
from victims import WATCHED, State, Victim

UNITS = "Write accounts, directories, units and the host's own command"
BUILDS = "Build the apps"
RELEASES = "Switch traffic to the releases"
SITES = ("Write the sites", "Reload nginx")
NGINX = "Start nginx and enable it at boot"

# In the commands: the live release and build of moody (gunicorn) and fast (granian), as variables of the shell
VARIABLES = """
cd /opt/flask_apps
release=$(basename "$(readlink moody/current)"); fast=$(basename "$(readlink fast/current)")
build=moody/builds/$(basename "$(readlink moody/current/build)")
unit=flask-moody@$release.service; settings=/etc/systemd/system/$unit.d/release.conf
worker=flask-moody.worker@$release:1.service; units=/etc/systemd/system
sites=/etc/nginx/sites-available; [ -d $sites ] || sites=/etc/nginx/conf.d
available=$sites/moody.test.conf; enabled=/etc/nginx/sites-enabled/moody.test.conf
[ -L $enabled ] || enabled=$available
"""


@dataclass(frozen=True)
class Drift:
    """One thing that somebody does to a host.

    :ivar command: of a shell, with VARIABLES
    :ivar changed: the tasks that must report a change, and no others
    :ivar red_hat: the same on the Red Hat family, where that differs
    """

    name: str
    command: str
    changed: tuple[str, ...]
    red_hat_command: str = ""
    red_hat_changed: tuple[str, ...] = ()


DRIFTS = (
    Drift("stopped unit", "systemctl stop $unit", (RELEASES,)),
    Drift("stopped unit, granian", "systemctl stop flask-fast@$fast.service", (RELEASES,)),
    Drift("stopped target", "systemctl stop flask-moody.target", (RELEASES,)),
    Drift("masked unit", "systemctl mask --now $unit", (RELEASES,)),
    Drift("masked socket", "systemctl mask flask-moody@$release.socket", (RELEASES,)),
    Drift("masked until the next boot", "systemctl mask --runtime --now $unit", (RELEASES,)),
    Drift("stopped worker", "systemctl stop $worker", (RELEASES,)),
    Drift("masked worker", "ln -sf /dev/null $units/$worker; systemctl daemon-reload", (RELEASES,)),
    Drift("deleted unit of a worker", "rm $units/$worker", (RELEASES,)),
    Drift("stopped timer", "systemctl stop flask-moody.yearly.timer", (RELEASES,)),
    Drift("deleted timer", "rm /etc/systemd/system/flask-moody.yearly.timer", (UNITS,)),
    Drift("deleted shared folder", "rm -r /var/lib/flask_apps/moody/shared/uploads", (BUILDS,)),
    Drift("disabled target", "systemctl disable flask-moody.target", (RELEASES,)),
    Drift("edited unit", "echo 'MemoryMax=1G' >> /etc/systemd/system/flask-moody@.service", (UNITS,)),
    Drift("deleted unit", "rm /etc/systemd/system/flask-moody.live.service", (UNITS,)),
    Drift("edited program", "echo '# mine' >> /usr/local/sbin/flask-app", (UNITS,)),
    Drift("deleted drop-in", "rm -r /etc/systemd/system/$unit.d", (RELEASES,)),
    Drift("edited drop-in", "echo 'Nice=19' >> $settings", (RELEASES,)),
    Drift("edited site", "echo '# mine' >> $available", SITES),
    Drift("unlinked site", "rm $enabled", SITES),
    Drift("deleted socket", "rm /run/flask_apps/moody/$release.sock", (RELEASES,)),
    Drift("deleted socket, granian", "rm /run/flask_apps/fast/$fast/web.sock", (RELEASES,)),
    Drift("deleted runtime directory", "rm -r /run/flask_apps/moody", (UNITS, RELEASES)),
    Drift("deleted current", "rm moody/current", (RELEASES,)),
    Drift("mode of an app's directory", "chmod 0777 moody moody/marks", (UNITS,)),
    Drift("owner of an app's directory", "chown nobody moody/releases", (UNITS,)),
    Drift("mode of the data directory", "chmod 0755 /var/lib/flask_apps/moody", (UNITS,)),
    Drift("owner of the data directory", "chown root /var/lib/flask_apps/fast", (UNITS,)),
    Drift("mode of a unit", "chmod 0600 /etc/systemd/system/flask-moody@.service", (UNITS,)),
    Drift("mode of an environment", "chmod 0644 moody/releases/$release/environment", (RELEASES,)),
    Drift("owner of a release", "chown -R nobody moody/releases/$release", (RELEASES,)),
    Drift("mode of the root", "chmod 0777 .", (UNITS,)),
    Drift("owner of the builds", "chown nobody moody/builds", (UNITS,)),
    Drift("mode of a mark", "chmod 0666 moody/marks/$release.json", (RELEASES,)),
    Drift("mode of the runtime directory", "chmod 0777 /run/flask_apps/moody", (UNITS,)),
    Drift("mode of the program", "chmod 0777 /usr/local/sbin/flask-app", (UNITS,)),
    Drift("mode of a site", "chmod 0666 $available", SITES),
    Drift("owner of a site", "chown nobody $available", SITES),
    Drift("edited account", "echo '# mine' >> /etc/sysusers.d/flask-moody.conf", (UNITS,)),
    Drift("mode of a socket", "chmod 0666 /run/flask_apps/moody/$release.sock", (RELEASES,)),
    Drift("mode of a build", "chmod 0777 $build/app.py; chmod 0000 $build/.venv/bin/gunicorn", (BUILDS,)),
    Drift("owner of a build", "chown -R nobody:$(id -gn nobody) $build", (BUILDS,)),
    Drift("deleted account", "userdel -f flask-moody; ! getent group flask-moody || groupdel flask-moody", (UNITS,)),
    Drift("stopped nginx", "systemctl stop nginx", (NGINX,)),
    Drift("disabled nginx", "systemctl disable nginx", (NGINX,)),
    Drift("masked nginx", "systemctl mask nginx", (NGINX,)),
    Drift(
        *("removed nginx", "DEBIAN_FRONTEND=noninteractive apt-get -y remove nginx > /dev/null", ("Install nginx",)),
        *("dnf -y remove nginx > /dev/null", ("Install nginx", NGINX)),
    ),
)


class Drifts:
    """The rounds of one host.

    :ivar state: what is deployed, and stays so
    """

    def __init__(self, victim: Victim, part: Part) -> None:
        self.victim = victim
        self.part = part
        self.state = State()

    async def prepare(self) -> None:
        """Deploy, and see that there is nothing to do."""
        await self.victim.settled(self.state)

    async def round(self, drift: Drift) -> None:
        """Drift once, predict, run, look."""
        victim = self.victim
        red_hat = victim.name == "almalinux"
        command = drift.red_hat_command if red_hat and drift.red_hat_command else drift.command
        expected = sorted(drift.red_hat_changed if red_hat and drift.red_hat_changed else drift.changed)
        before = await victim.live()
        problems = []
        await victim.machine.run(VARIABLES + command)
        predicted = await victim.run("site", self.state, check=True)
        outcome = await victim.run("site", self.state)
        if outcome.status:
            problems.append(f"the run failed: {outcome.messages[-1500:]}")
        if sorted(outcome.changed) != expected:
            problems.append(f"changed {outcome.changed}, expected {expected}")
        if predicted.status or sorted(predicted.changed) != expected:
            problems.append(f"predicted {predicted.changed} {predicted.messages[-500:] if predicted.status else ''}")
        if await victim.live() != before:
            problems.append("it took a new release")
        problems += [problem for app in WATCHED if (problem := await victim.serves(app, self.state))]
        problems += [f"left behind: {line}" for line in await victim.leftovers(20)]
        self.part.add(victim.name, drift.name, problems, struck="drift")

    async def end(self) -> None:
        """All of it is right now."""
        outcome = await self.victim.run("site", self.state)
        problems = [f"one more run changed {outcome.changed}"] if outcome.status or outcome.changed else []
        self.part.add(self.victim.name, "one more run", problems)
