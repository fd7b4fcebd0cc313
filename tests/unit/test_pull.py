# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pulling host takes up, holds back and tells: with git and ssh-keygen themselves, Ansible is a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import pull

GIT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.org",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.org",
}
# In the place of Ansible: says what it was asked, and fails as the playbook of the commit says.
ANSIBLE = """#!/bin/bash
echo "$@" >> {log}
shift 2
kind=$1; playbook=${{!#}}
[ "$kind" = playbook ] || {{ mkdir -p "${{!#}}"; touch "${{!#}}/installed"; exit; }}
[[ "$*" == *--check* ]] && {{ grep -q 'bad plan' "$playbook" && echo 'TASK [Plan]
fatal: [web1]: FAILED! domain is wrong

PLAY RECAP ***
web1 : ok=1    changed=0    unreachable=0    failed=1' && exit 2; exit 0; }}
echo "PLAY [all] ***"; cat "$playbook"
echo "PLAY RECAP ***"
grep -q 'no host' "$playbook" || echo "web1 : ok=3    changed=2    unreachable=0    failed=0    skipped=1"
grep -q 'bad run' "$playbook" && exit 2
exit 0
"""


class Origin:
    """The repository that is pulled."""

    def __init__(self, folder):
        self.folder = folder
        self.keys = {}
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments):
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, env=GIT, check=True, capture_output=True, text=True).stdout.strip()

    def key(self, name):
        path = self.folder.parent / f"key-{name}"
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
            subprocess.run(command, check=True)
        return path

    def signer(self, name):
        return f"{name}@example.org {self.key(name).with_suffix('.pub').read_text().strip()}\n"

    def commit(self, text, signer=None, **files):
        """A commit whose playbook has a text; returns it."""
        for file, content in {"site.yml": text, **files}.items():
            (self.folder / file).write_text(f"{content}\n")
        self.git("add", ".")
        signed = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.key(signer)}"] if signer else []
        self.git(*signed, "commit", "--quiet", "--allow-empty", "-m", text, *(["-S"] if signer else []))
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path):
    return Origin(tmp_path / "origin")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def pull_once(tmp_path, origin, log):
    """Run the agent; returns (what it returned, its result)."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("")
    signers = tmp_path / "allowed_signers"
    signers.write_text(origin.signer("alice"))
    configuration = {
        "host": "web1",
        "repository": str(origin.folder),
        "version": "main",
        "allowed_signers": str(signers),
        "known_hosts": "",
        "inventory": "inventory",
        "here": "/etc/here",
        "playbook": "site.yml",
        "requirements_file": "requirements.yml",
        "galaxy_options": ["--no-deps"],
        "arguments": [],
        "python": sys.executable,
        "requirements": str(requirements),
        "environments": str(tmp_path / "environments"),
        "pip_options": [],
    }
    state = pull.State(str(tmp_path / "state"))

    def run(**changes):
        agent = pull.Agent({**configuration, **changes}, state, str(tmp_path / "credentials"))
        python = Path(agent.ansible.directory, "bin", "python")
        if not python.exists():
            python.parent.mkdir(parents=True)
            python.write_text(ANSIBLE.format(log=log))
            python.chmod(0o755)
            Path(agent.ansible.complete).touch()
        return agent.run(), state.result()

    run.state = state
    return run


def test_a_signed_commit_gets_in_force_and_is_run(origin, pull_once, log):
    commit = origin.commit("one", "alice")
    good, result = pull_once()
    assert good and result["state"] == "ok" and result["commit"] == commit and result["changed"] == 2
    assert (result["subject"], result["held"], result["reason"]) == ("one", None, "")
    plan, run = log.read_text().splitlines()
    assert "--check --tags always site.yml" in plan and "--check" not in run
    checkout = f"{pull_once.state.commits}/{commit}"
    assert f"--inventory {checkout}/inventory --inventory /etc/here --limit web1" in run
    assert pull_once()[1]["since"] == result["since"]
    assert len(log.read_text().splitlines()) == 3, "an unchanged commit is planned no second time"


@pytest.mark.parametrize(
    "signer, text, reason",
    [
        (None, "bad", "not signed by an allowed signer (it has none)"),
        ("mallory", "bad", "not signed by an allowed signer (Good"),
        ("alice", "bad plan", "can't plan what it declares: status 2"),
    ],
)
def test_a_bad_commit_is_held_back_and_the_one_before_stays(origin, pull_once, log, signer, text, reason):
    good = origin.commit("one", "alice")
    pull_once()
    bad = origin.commit(text, signer)
    well, result = pull_once()
    assert not well and (result["state"], result["commit"], result["subject"]) == ("ok", good, "one")
    assert result["held"]["commit"] == bad and result["held"]["reason"].startswith(reason), result["held"]
    assert log.read_text().splitlines()[-1].endswith("site.yml"), "what is in force is still made true"
    if text == "bad plan":
        assert result["held"]["output"] == ["TASK [Plan]", "fatal: [web1]: FAILED! domain is wrong"]
    line = pull.result_line(result)
    assert f"pulled {good[:8]} (one), 2 changes" in line and f"{bad[:8]} ({text}) was held back" in line
    mended = origin.commit("two", "alice")
    assert pull_once()[1]["commit"] == mended
    pull_once()
    assert os.listdir(pull_once.state.commits) == [mended]


def test_there_is_no_way_back_but_a_pin(origin, pull_once):
    """A server, or who gets at it, can't bring back what was signed once."""
    old = origin.commit("one", "alice")
    new = origin.commit("two", "alice")
    assert pull_once()[1]["commit"] == new
    origin.git("reset", "--quiet", "--hard", old)
    result = pull_once()[1]
    assert result["commit"] == new and result["held"]["reason"].startswith(f"does not come after {new[:8]}")
    assert pull_once(version=old)[1]["commit"] == old


def test_a_pinned_commit_needs_no_signature(origin, pull_once):
    commit = origin.commit("one")
    origin.commit("two")
    well, result = pull_once(version=commit)
    assert well and result["commit"] == commit
    well, result = pull_once(version="0" * 40)
    assert not well and result["commit"] == commit and "has no such commit" in result["held"]["reason"]


def test_without_a_commit_in_force_nothing_is_run(origin, pull_once, log):
    origin.commit("one")
    well, result = pull_once()
    assert not well and (result["state"], result["commit"]) == ("failed", None)
    assert result["reason"].startswith("no commit is in force: not signed")
    assert not log.exists()


def test_a_server_that_does_not_answer_leaves_the_commit_in_force(origin, pull_once):
    commit = origin.commit("one", "alice")
    pull_once()
    well, result = pull_once(repository="/nowhere")
    assert not well and (result["state"], result["commit"]) == ("ok", commit)
    assert "nothing new was taken up: can't fetch the repository" in pull.result_line(result)


def test_a_run_that_fails_is_told(origin, pull_once):
    origin.commit("bad run", "alice")
    well, result = pull_once()
    assert not well and result["state"] == "failed" and result["reason"] == "can't make it true: status 2"
    assert result["output"][-1] == "bad run"
    origin.commit("no host", "alice")
    assert pull_once()[1]["reason"] == "the playbook is for no group that has web1"


def test_collections_are_installed_once(origin, pull_once, log):
    origin.commit("one", "alice", **{"requirements.yml": "collections: []"})
    pull_once()
    pull_once()
    assert len([line for line in log.read_text().splitlines() if "collection install --no-deps" in line]) == 1
    for number in range(3):
        origin.commit(f"more {number}", "alice", **{"requirements.yml": f"collections: [] # {number}"})
        pull_once()
    assert len(os.listdir(pull_once.state.collections)) == 2


def test_the_password_is_given_by_its_file(origin, pull_once, log, tmp_path):
    origin.commit("one", "alice")
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "vault_password").write_text("c4n4ry")
    pull_once()
    assert f"--vault-password-file {folder}/vault_password" in log.read_text()
    assert "c4n4ry" not in log.read_text() + json.dumps(pull_once.state.result())


@pytest.mark.parametrize("how, reason", [("timeout", "longer than it may"), ("signal", "ended (signal)")])
def test_the_end_of_a_run_that_hangs_is_told(origin, pull_once, how, reason):
    commit = origin.commit("one", "alice")
    pull_once()
    result = pull_once.state.result()
    pull.note_end(pull_once.state, how)
    assert pull_once.state.result() == result, "it had an end of its own"
    pull_once.state.write_result({**result, "state": "running"})
    pull.note_end(pull_once.state, how)
    told = pull_once.state.result()
    assert told["state"] == "failed" and reason in told["reason"] and told["commit"] == commit
    assert "FAILED" in pull.result_line(told)


def test_a_killed_environment_is_made_anew(tmp_path, monkeypatch):
    commands = []

    def run(command, what):
        commands.append(command)
        if "venv" in command:
            os.makedirs(command[-1], exist_ok=True)

    monkeypatch.setattr(pull, "run", run)
    (tmp_path / "requirements.txt").write_text("one")
    settings = {"environments": str(tmp_path / "all"), "python": "/usr/bin/python3", "pip_options": ["--isolated"]}
    settings["requirements"] = str(tmp_path / "requirements.txt")
    environment = pull.Environment(settings)
    os.makedirs(environment.directory)
    assert environment.make() is True and environment.make() is False
    assert commands[0][1:] == ["-m", "venv", "--clear", environment.directory]
    assert "--require-hashes" in commands[1] and "--isolated" in commands[1]
    for text in ("two", "three"):
        (tmp_path / "requirements.txt").write_text(text)
        environment.make()
    assert len(os.listdir(tmp_path / "all")) == 2


def test_a_run_that_a_power_cut_has_ended_is_no_run(pull_once):
    state = pull_once.state
    assert state.told() is None
    os.makedirs(state.root, exist_ok=True)
    state.write_result({"state": "running", "reason": ""})
    with state.alone():
        assert state.told()["state"] == "running"
        with pytest.raises(BlockingIOError), state.alone():
            pass
    assert state.told() == {"state": "failed", "reason": "it did not come to its end"}


def test_ssh_trusts_the_stated_keys_and_no_others(tmp_path):
    settings = {"repository": "git@git.test:fleet.git", "version": "main", "allowed_signers": "", "known_hosts": ""}
    state = pull.State(str(tmp_path))
    plain = pull.Repository(settings, state, str(tmp_path)).environment["GIT_SSH_COMMAND"]
    assert "-i" not in plain.split() and "StrictHostKeyChecking" not in plain
    (tmp_path / "repository_key").write_text("key")
    settings["known_hosts"] = "/etc/known hosts"
    stated = pull.Repository(settings, state, str(tmp_path)).environment["GIT_SSH_COMMAND"]
    assert f"-i {tmp_path}/repository_key -o IdentitiesOnly=yes" in stated
    assert "'UserKnownHostsFile=/etc/known hosts' -o StrictHostKeyChecking=yes" in stated


def test_what_was_wrong_is_told_though_tasks_come_after_it():
    output = (
        "TASK [Plan the apps] ***\n[ERROR]: Task failed\nfatal: [web1]: FAILED! =>\n    msg: `domain` is wrong\n\n"
        "TASK [Say it] ***\nskipping: [web1]\n\nPLAY RECAP ***\nweb1: ok=1\n"
    )
    assert pull.telling_lines(output) == [
        "[ERROR]: Task failed",
        "fatal: [web1]: FAILED! =>",
        "    msg: `domain` is wrong",
    ]
