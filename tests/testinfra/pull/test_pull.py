# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that keep themselves true, without anybody who runs a playbook."""

from __future__ import annotations

import json

import pytest
from fleet import PASSWORD_TEXT, SECRET, SITE, head
from waiting import wait_for

SERVICE = "flaskfleet-pull.service"
HANGING = {"name": "Hang", "ansible.builtin.shell": "setsid sleep 86399 & sleep 86399"}
HANGS = [{"name": "Hang", "hosts": "appservers", "gather_facts": False, "tasks": [HANGING]}]
# A pattern that is no secret's text, nor is the command that looks for it.
EVERYWHERE = "find / /run /tmp /var/tmp /dev/shm -xdev -type f -size -64M -print0 | xargs -0 grep -slE '[%s]%s' || true"


def test_a_bare_host_becomes_what_the_repository_says(machine, agent):
    well, result = agent.pull()
    assert well, (result, agent.journal())
    assert (result["state"], result["held"], result["subject"]) == ("ok", None, "The first")
    assert result["changed"] > 5
    assert machine.get("hello.test", "/health")[0] == 200
    assert machine.live("hello")["commit"] == head("master")


def test_a_second_pull_changes_nothing(machine, agent):
    since = agent.result()["since"]
    well, result = agent.pull()
    assert well and result["changed"] == 0, agent.journal()
    assert result["since"] == since


def test_the_timer_is_armed_with_a_delay_of_the_host(machine):
    timer = "flaskfleet-pull.timer"
    machine.output(f"systemctl is-active {timer} && systemctl is-enabled {timer}")
    assert machine.property(timer, "RandomizedDelayUSec") == "15min"
    assert machine.property(timer, "FixedRandomDelay") == "yes"
    upcoming = machine.property(timer, "NextElapseUSecRealtime")
    assert upcoming and " 04:00:00 " not in upcoming


def test_what_was_changed_by_hand_is_put_right(machine, agent, in_force):
    machine.output("systemctl disable --now nginx && rm /opt/flask_apps/hello/current")
    machine.output("echo '# by hand' >> /etc/systemd/system/flask-hello@.service")
    assert machine.get("hello.test", "/health")[0] != 200
    well, result = agent.pull()
    assert well and result["changed"] >= 3, agent.journal()
    assert machine.get("hello.test", "/health")[0] == 200
    assert "by hand" not in machine.output("cat /etc/systemd/system/flask-hello@.service")


def test_a_new_commit_is_deployed(machine, agent, fleet, in_force):
    commit = fleet.commit("The other version", **fleet.hello(version="version2"))
    with machine.under_load("hello") as load:
        well, result = agent.pull()
    assert well and result["commit"] == commit, agent.journal()
    assert machine.live("hello")["commit"] == head("version2")
    assert load["failed"] == 0, load
    assert "pulled" in machine.deploy(playbook="status") and commit[:8] in machine.deploy(playbook="status")


@pytest.mark.parametrize(
    "signer, app, reason",
    [
        (None, {"version": "version2"}, "not signed by an allowed signer"),
        ("mallory", {"version": "version2"}, "not signed by an allowed signer"),
        ("alice", {"domain": "-wrong-"}, "can't plan what it declares"),
    ],
    ids=["unsigned", "another signer", "no plan"],
)
def test_a_bad_commit_is_held_back(machine, agent, fleet, in_force, signer, app, reason):
    bad = fleet.commit("Not good", signer=signer, **fleet.hello(**app))
    machine.output("systemctl stop nginx")
    well, result = agent.pull()
    assert not well and (result["state"], result["commit"]) == ("ok", in_force), agent.journal()
    assert result["held"]["commit"] == bad and result["held"]["reason"].startswith(reason)
    if signer == "alice":
        assert "`domain`" in "\n".join(result["held"]["output"])
    assert machine.live("hello")["commit"] == head("master")
    assert machine.get("hello.test", "/health")[0] == 200, "what is in force was made true"
    table = machine.deploy(playbook="status")
    assert f"{bad[:8]} (Not good) was held back: {reason}" in " ".join(table.split())


def test_a_run_that_hangs_is_ended_with_all_its_processes(machine, agent, fleet, in_force):
    dropin = "/run/systemd/system/flaskfleet-pull.service.d"
    fleet.commit("One that hangs", files={"site.yml": json.dumps(HANGS)})
    agent.begin()
    try:
        wait_for(lambda: machine.host.run("pgrep -f 'sleep 8639[9]'").rc == 0, 60, agent.journal)
        # systemd reckons from the start of the run, also when it is told meanwhile how long that may take
        machine.output(f"mkdir -p {dropin} && printf '[Service]\\nTimeoutStartSec=1\\n' > {dropin}/short.conf")
        machine.output("systemctl daemon-reload")
        wait_for(lambda: machine.property(SERVICE, "ActiveState") == "failed", 60)
        assert machine.host.run("pgrep -f 'sleep 8639[9]'").rc == 1
        result = agent.result()
        assert (result["state"], result["reason"]) == ("failed", "it took longer than it may")
    finally:
        machine.output(f"rm -rf {dropin} && systemctl daemon-reload && systemctl stop {SERVICE}")
    fleet.commit("One that ends", files={"site.yml": json.dumps(SITE)})
    assert agent.pull()[0], agent.journal()


def test_a_push_and_a_pull_at_the_same_time(machine, agent, fleet, in_force):
    wanted = fleet.hello(version="version2")
    fleet.commit("For both", **wanted)
    with machine.under_load("hello") as load:
        agent.begin()
        push = machine.begin(**wanted, vault_token=SECRET)
        output = push.communicate()[0]
        wait_for(lambda: machine.property(SERVICE, "ActiveState") in ("inactive", "failed"), 120)
    assert push.returncode == 0, output
    result = agent.result()
    assert (result["state"], result["held"]) == ("ok", None), (result, agent.journal())
    assert load["failed"] == 0, load
    assert machine.live("hello")["commit"] == head("version2")
    units = machine.output("systemctl list-units --plain --no-legend 'flask-hello@*.service'")
    assert len(units.splitlines()) == 1, units
    assert agent.pull()[1]["changed"] == 0, agent.journal()


def test_a_host_that_does_not_lead_waits_for_release_commands(machine, agent, fleet, in_force):
    other = "almalinux" if machine.name == "ubuntu" else "ubuntu"
    wanted = {**fleet.hello(version="version2", release_commands=["true"]), "flask_app_release_leader": other}
    before = machine.live("hello")["release"]
    fleet.commit("With release commands", **wanted)
    well, result = agent.pull()
    assert well and result["changed"] <= 1, agent.journal()  # the build, which nothing waits for
    assert machine.live("hello")["release"] == before
    assert f"{other} has run its release commands" in " ".join(agent.journal().split())
    done = {"hello": head("version2")[:12]}
    fleet.commit("Told", **wanted, flask_app_release_commands_done=done)
    assert agent.pull()[0], agent.journal()
    assert machine.live("hello")["commit"] == head("version2")


@pytest.mark.parametrize("secret", [PASSWORD_TEXT, SECRET], ids=["the vault's password", "of an app"])
def test_secrets_lie_nowhere(machine, agent, in_force, secret):
    agent.begin()
    words = set()
    while machine.property(SERVICE, "ActiveState") == "activating":
        words |= set(machine.output("ps -eo args=").splitlines())
    assert words and not [each for each in words if secret in each]
    assert secret not in machine.output(f"systemctl show {SERVICE}; journalctl --no-pager")
    # nowhere but in the environments of the app's releases
    found = machine.output(EVERYWHERE % (secret[0], secret[1:]))
    owned = {each.rpartition("/")[2] for each in found.splitlines()}
    assert owned == ({"environment"} if secret == SECRET else set()), found


def test_the_credential_is_encrypted_and_roots(machine):
    path = "/etc/credstore.encrypted/flaskfleet-pull.vault_password"
    file = machine.host.file(path)
    assert file.user == "root" and file.size > 100
    assert machine.host.file("/etc/credstore.encrypted").mode == 0o700
    decrypted = machine.output(f"systemd-creds decrypt --name=vault_password {path} -")
    assert decrypted == PASSWORD_TEXT


def test_the_repository_keeps_what_it_is_for(machine):
    """Nobody but root reads what was fetched."""
    result = machine.host.run("setpriv --reuid nobody --clear-groups ls /var/lib/flaskfleet/pull/current")
    assert result.rc != 0


def test_the_agent_renews_itself(machine, agent, fleet, in_force):
    """By the role in the playbook that it pulls, which need not have the password."""
    ours = [*SITE, {"name": "Have the agent", "import_playbook": "flaskfleet.deploy.pull_agent"}]
    settings = fleet.agent(pull_agent_random_delay="7min")
    commit = fleet.commit("One that has the agent", files={"site.yml": json.dumps(ours), **settings})
    well, result = agent.pull()
    assert well and (result["commit"], result["changed"]) == (commit, 1), agent.journal()
    assert machine.property("flaskfleet-pull.timer", "RandomizedDelayUSec") == "7min"
    fleet.commit("One that has not", files={"site.yml": json.dumps(SITE)})
    well, result = agent.pull()
    assert well and result["changed"] == 0, agent.journal()


def test_an_agent_goes(machine):
    """The last: it takes the agent from the host. What it has deployed stays."""
    command = "ls /usr/local/sbin/flaskfleet-pull /etc/systemd/system/flaskfleet-pull.timer /etc/credstore.encrypted"
    there = machine.output(command)
    machine.deploy("--check", playbook="pull_agent", pull_agent_state="absent")
    assert machine.output(command) == there
    machine.deploy(playbook="pull_agent", pull_agent_state="absent")
    assert machine.host.run("systemctl list-timers --all | grep flaskfleet-pull").rc == 1
    assert machine.host.run("ls /usr/local/sbin/flaskfleet-pull").rc != 0
    assert machine.output("ls /etc/credstore.encrypted") == ""
    assert "changed=0" in machine.deploy(playbook="pull_agent", pull_agent_state="absent")
    assert machine.get("hello.test", "/health")[0] == 200
