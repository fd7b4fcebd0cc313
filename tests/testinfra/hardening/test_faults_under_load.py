# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app that takes all it can get: the others go on answering.

systemd can't limit units inside these containers, so that is only asserted of their settings, and the container is
limited instead, by Podman: what is shown is that the kernel ends the greedy app and nobody else. The containers have no
disk of their own either: the one that is filled is a file system in memory, with the data of all apps.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager

from waiting import wait_for


@contextmanager
def little_memory(machine, limit):
    """Limit the memory of the host itself meanwhile."""
    update = ["podman", "update", machine.host.backend.name]
    subprocess.run([*update, f"--memory={limit}", f"--memory-swap={limit}"], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*update, "--memory=1t", "--memory-swap=1t"], check=True, capture_output=True)


@contextmanager
def little_disk(machine, size):
    """Have the data of all apps on a small file system meanwhile. Units keep the one that they were started on."""
    data, aside = "/var/lib/flask_apps", "/var/lib/flask_apps.aside"
    machine.output(f"cp -a {data} {aside} && mount -t tmpfs -o mode=755,size={size} tmpfs {data}")
    try:
        machine.output(f"cp -a {aside}/. {data}")
        restart(machine)
        yield
    finally:
        machine.output(f"umount --lazy {data}; rm -r {aside}")
        restart(machine)


def restart(machine):
    units = [machine.unit(app) for app in ("burglar", "sealed", "granian")]
    machine.output(f"systemctl restart {' '.join(units)}")


def attack(machine, kind, seconds=6):
    """(HTTP status, body) of an attack; status 0 when the app died of it or gave no answer in time."""
    command = ["curl", "--silent", "--max-time", str(seconds), "--request", "POST", "--write-out", "\n%{http_code}"]
    command += ["--resolve", f"burglar.test:80:{machine.address}", f"http://burglar.test/attack/{kind}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    body, _newline, status = result.stdout.rpartition("\n")
    return int(status), body


def comes_back(machine):
    """Wait until the greedy app answers again: its server starts what was ended by itself."""
    wait_for(lambda: machine.get("burglar.test", "/health")[0] == 200, 60)


def test_limits_are_the_units(machine):
    unit = machine.unit("burglar")
    assert machine.property(unit, "MemoryMax") == str(200 * 1024**2)
    assert machine.property(unit, "TasksMax") == "80"
    assert machine.property(unit, "CPUQuotaPerSecUSec") == "1.500000s"


def test_one_takes_all_memory(machine):
    with little_memory(machine, "900m"), machine.under_load("sealed", rate=20) as report:
        status, _body = attack(machine, "memory", 40)
        assert status in (0, 502, 504)
    assert report["requests"] > 50 and report["failed"] == 0, report
    comes_back(machine)


def test_one_starts_processes_without_end(machine):
    """As many as Podman lets the container have; nobody can start one then, and who runs already goes on."""
    with machine.under_load("sealed", rate=20) as report:
        status, body = attack(machine, "processes", 40)
        assert status == 200 and int(body) > 100, (status, body)
    # gunicorn starts a thread when it needs one, and can't then. What would be in the greedy app's way is its unit's
    # TasksMax, which nobody heeds in a container.
    assert report["requests"] > 50 and report["failed"] <= 10 and report["seconds_away"] < 2, report
    comes_back(machine)


def test_all_threads_of_one_are_busy(machine):
    """Clients that wait for an answer that never comes take every thread of the app."""
    clients = 40
    command = ["curl", "--silent", "--max-time", "20", "--request", "POST", "--parallel", "--parallel-immediate"]
    command += ["--parallel-max", str(clients), "--resolve", f"burglar.test:80:{machine.address}"]
    command += [f"http://burglar.test/attack/time?[1-{clients}]"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as busy:
        time.sleep(3)
        assert attack(machine, "time", 2)[0] == 0
        with machine.under_load("sealed", rate=20) as report:
            pass
        busy.terminate()
    assert report["requests"] > 50 and report["failed"] == 0, report
    machine.output(f"systemctl kill --signal=KILL {machine.unit('burglar')}")  # a stop would wait for the answers


def test_one_fills_the_disk(machine):
    """The others need none to answer, nor does nginx."""
    with little_disk(machine, "64m"):
        with machine.under_load("sealed", rate=20) as report:
            status, body = attack(machine, "disk", 40)
            assert status == 200 and int(body) > 10, (status, body)
            full = machine.output("df --output=avail /var/lib/flask_apps | tail -n 1")
            assert full.strip() == "0" and machine.get("granian.test", "/health")[0] == 200
        assert report["requests"] > 50 and report["failed"] == 0, report


def test_one_does_not_listen_to_sigterm(machine):
    """Its next release takes the traffic as ever; what does not end is ended, and nobody else waits for that."""
    worker = {"command": "trap '' TERM; while :; do sleep 1; done", "stop_timeout": 5}
    deaf = {"env": {"DEAF": "1"}, "processes": {"deaf": worker}}
    deploy = {"flask_apps": "{{ test_burgled_apps }}", "flask_app_only": ["burglar"]}
    machine.deploy("--tags", "build,release", **deploy, flask_app_overrides={"burglar": deaf})
    old = machine.live("burglar")["release"]
    units = [f"flask-burglar@{old}.service", f"flask-burglar.deaf@{old}:1.service"]
    assert machine.output(f"systemctl is-active {' '.join(units)}").split() == ["active"] * 2
    with machine.under_load("sealed", rate=20) as others, machine.under_load("burglar", rate=20) as own:
        machine.deploy("--tags", "build,release", **deploy)
    assert machine.live("burglar")["release"] != old
    assert others["failed"] == own["failed"] == 0 and min(others["requests"], own["requests"]) > 50, (others, own)

    def ended():
        return set(machine.host.run(f"systemctl is-active {' '.join(units)}").stdout.split()) <= {"inactive", "failed"}

    wait_for(ended, 150)
