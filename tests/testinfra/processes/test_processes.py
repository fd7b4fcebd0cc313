# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers beside the web process: they follow the traffic, finish their jobs, and may cost a release the traffic."""

from __future__ import annotations

import json

SAME = "User ProtectSystem NoNewPrivileges PrivateUsers SystemCallFilter BindPaths TemporaryFileSystem UMask"


def expected(busy, processes):
    """Units that run, by {process: instances}, of the live release, with its web process and what stays."""
    release = busy.live
    units = {busy.unit(process, number + 1) for process, count in processes.items() for number in range(count)}
    web = {f"flask-busy@{release}.service", f"flask-busy@{release}.socket"}
    return units | web | {"flask-busy.target", "flask-busy.live.service", "flask-busy.tidy.timer"}


ALL = {"worker": 2, "once": 1}


def test_processes_run_as_the_web_process_does(busy):
    machine = busy.machine
    assert busy.running() == expected(busy, ALL)
    show = f"systemctl show --property={SAME.replace(' ', ',')}"
    web = machine.output(f"{show} {machine.unit('busy')}")
    for number in (1, 2):
        assert machine.output(f"{show} {busy.unit(number=number)}") == web
        assert machine.property(busy.unit(number=number), "TasksMax") == "40"
        pid = machine.property(busy.unit(number=number), "MainPID")
        assert "sh" not in machine.output(f"cat /proc/{pid}/comm"), "the shell has given way to the command"
    busy.since = 0.0
    told = [each for each in busy.notes("started") if each["release"] == busy.live][-2:]
    seen = json.loads(machine.get("busy.test", "/seen")[1])
    assert len(told) == 2 and all(seen.items() <= each.items() for each in told)
    assert [each["release"] for each in busy.notes("once")].count(busy.live) >= 1
    assert machine.property(busy.unit("once"), "SubState") == "exited"
    assert "c4n4ry" not in machine.output("systemctl show 'flask-busy*'; systemctl cat 'flask-busy*'")


def test_a_job_is_finished_across_a_deployment(busy):
    """The watch, which exchanges the processes, is killed meanwhile, and systemd starts it again."""
    machine, before = busy.machine, busy.live
    busy.give("mail-20")
    busy.forget()
    variables = busy.variables(version="version2")
    with machine.under_load("busy", rate=40) as report, machine.begin(**variables) as run:
        busy.wait_for(lambda: busy.live != before, 60)
        machine.output("systemctl kill --signal=KILL 'flask-busy.settle-*'")
        output = run.communicate()[0]
    assert run.returncode == 0 and report["failed"] == 0, output
    assert machine.get("busy.test")[1] == "2"
    done = [(each["what"], each["release"]) for each in busy.notes()]
    old, new = ("ended", before), ("started", busy.live)
    assert [each for each in done if each in (old, new)] == [old, old, new, new], "never two releases at once"
    assert done.index(("done", before)) < done.index(new)
    busy.settle()
    assert busy.running() == expected(busy, ALL)


def test_a_process_may_overlap_and_is_killed_in_the_end(busy):
    worker = {"command": "flask work", "overlap": True, "stop_timeout": 12}
    busy.deploy(processes={"worker": worker}, env={"WORKER": "stubborn"})
    before = busy.live
    busy.forget()
    busy.deploy(processes={"worker": worker})
    assert busy.unit(release=before) in busy.machine.output("systemctl list-units --plain 'flask-busy.worker@*'")
    assert [each["release"] for each in busy.notes("started")] == [busy.live] and not busy.notes("ended")
    busy.settle()
    assert busy.running() == expected(busy, {"worker": 1, "once": 1})
    assert busy.machine.output("systemctl list-units --failed --plain --no-legend 'flask-busy*'") == ""


def test_a_process_that_dies_costs_its_release_the_traffic(busy):
    machine, before = busy.machine, busy.live
    with machine.under_load("busy", rate=40) as report:
        result = busy.attempt(env={"WORKER": "crash=0.5"}, settle=20)
    assert result.returncode != 0 and report["failed"] == 0
    said = " ".join(result.stdout.split())
    assert "busy: settle: flask-busy.worker@" in said and f"; traffic went back to {before}" in said
    assert "busy, as asked" in said, "the journal of the process says why"
    assert busy.live == before
    busy.settle()
    busy.wait_for(lambda: busy.running() == expected(busy, {"worker": 2, "once": 1}))
    assert [each["release"] for each in busy.notes("started")][-2:] == [before, before]
    assert "changed=0" in busy.deploy()


def test_a_rollback_brings_the_processes_back(busy):
    machine, before = busy.machine, busy.live
    type(busy).unchanged = False
    changed = {"other": "flask work --name other"}
    flask_apps = "{{ [test_busy_apps[0] | combine({'processes': changed, 'schedules': {}})] }}"
    machine.deploy(flask_apps=flask_apps, changed=changed)
    busy.settle()
    assert busy.running() == expected(busy, {"other": 1}) - {"flask-busy.tidy.timer"}
    assert [each["name"] for each in busy.notes("started")] == ["other"]
    assert machine.host.run("ls /etc/systemd/system/flask-busy.tidy.*").rc != 0
    machine.deploy(playbook="rollback", flask_apps=flask_apps, changed=changed)
    assert busy.live.split(".")[0] == before.split(".")[0]
    busy.settle()
    assert busy.running() == expected(busy, ALL) - {"flask-busy.tidy.timer"}
    assert [each["name"] for each in busy.notes("started")] == ["other", "worker", "worker"]


def test_what_somebody_stopped_is_started(busy):
    machine = busy.machine
    machine.output(
        f"systemctl stop {busy.unit()} flask-busy.tidy.timer; systemctl mask --runtime {busy.unit(number=2)}"
    )
    machine.output(f"rm /etc/systemd/system/{busy.unit('once')}")
    output = " ".join(busy.deploy().split())
    assert f"mended ({busy.unit()} did not run" in output and "; settings)" in output
    assert busy.running() == expected(busy, ALL)
    assert "changed=0" in busy.deploy()


def test_the_target_is_all_of_them(busy):
    """As at a reboot."""
    machine = busy.machine
    machine.output("systemctl stop flask-busy.target")
    busy.wait_for(lambda: busy.running() == set())
    machine.output("systemctl start flask-busy.target")
    busy.wait_for(lambda: busy.running() == expected(busy, ALL))
    assert machine.get("busy.test")[0] == 200
