# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transient unit in which commands run; systemd's programs are stubs that write their arguments down."""

from __future__ import annotations

import os

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import sandbox
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed

# As systemd does with the words of a command, two dollar signs are made one (a name behind one would be replaced).
RUN = """while [ "$1" != -- ]; do shift; done; shift; count=$#
while [ $count -gt 0 ]; do
    word=$(printf '%s.' "$1" | sed 's/[$][$]/$/g'); shift; set -- "$@" "${word%.}"; count=$((count-1))
done
"$@" """


@pytest.fixture
def systemd_run(tmp_path, monkeypatch):
    """Make a systemd-run of shell commands; its arguments land in the file ``arguments``, one a line."""

    def make(script=RUN, name="systemd-run"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "arguments"

    return make


def test_run(systemd_run):
    keep = "cat $file"
    find = "for each; do case $each in *EnvironmentFile=*) file=${each##*=};; esac; done"
    arguments = systemd_run(f"{find}; ({keep}) > ${{0%/*}}/environment; echo err >&2; {RUN}")
    command = ["printf", "%s\\n", "out", "it's $HOME"]
    output = sandbox.run(
        command,
        unit="flask-hello.build",
        user="flask-hello",
        writable=["/w1", "/w2"],
        readable=["/r"],
        hidden=["/h"],
        environment={"A": "b c", "HOME": "/elsewhere"},
        directory="/w1",
        limit=60,
    )
    assert output == "out\nit's $HOME\n"
    words = arguments.read_text().splitlines()
    assert words[-4:] == [word.replace("$", "$$") for word in command]
    assert "--description=A command of a Flask app" in words
    properties = {word.removeprefix("--property=") for word in words if word.startswith("--property=")}
    (file,) = {each for each in properties if each.startswith("EnvironmentFile=")}
    own = {"User=flask-hello", "WorkingDirectory=/w1", "RuntimeMaxSec=60", "TemporaryFileSystem=/h:ro"}
    paths = {"BindReadOnlyPaths=/r", "BindPaths=/w1", "BindPaths=/w2"}
    assert properties == {*sandbox.PROPERTIES, *own, *paths, file}
    assert file.startswith(f"EnvironmentFile=/proc/{os.getpid()}/fd/") and "b c" not in " ".join(words)
    assert (arguments.parent / "environment").read_text() == 'A="b c"\nHOME="/elsewhere"\n'
    assert not os.path.exists(file.removeprefix("EnvironmentFile="))
    assert {"--wait", "--pipe", "--collect", "--service-type=exec"} <= set(words)


def test_credentials_are_files_that_go_with_it(systemd_run):
    find = "for each; do case $each in *LoadCredential=key:*) file=${each##*:};; esac; done"
    arguments = systemd_run(f"{find}; cat $file > ${{0%/*}}/key; {RUN}")
    sandbox.run(["true"], unit="x", user="u", credentials={"key": "c4n4ry\n", "known_hosts": "a host\n"})
    assert (arguments.parent / "key").read_text() == "c4n4ry\n" and "c4n4ry" not in arguments.read_text()
    loaded = [line for line in arguments.read_text().splitlines() if "LoadCredential" in line]
    assert len(loaded) == 2 and not any(os.path.exists(line.rpartition(":")[2]) for line in loaded)


@pytest.mark.parametrize(
    "needed", ["NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "ProtectHome=tmpfs"]
)
def test_what_every_command_is_denied(needed):
    assert needed in sandbox.PROPERTIES


def test_a_command_that_fails_tells_the_end_of_its_output(systemd_run):
    systemd_run()
    script = 'i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i"; done; printf "\\377 last\\n" >&2; exit 7'
    with pytest.raises(CommandFailed, match="^exited with status 7$") as caught:
        sandbox.run(["/bin/sh", "-c", script], unit="x", user="u")
    assert caught.value.status == 7
    assert len(caught.value.output) == 25
    assert caught.value.output[-3:] == ["line 39", "line 40", "\ufffd last"]


@pytest.mark.parametrize("output", ["", "no newline", "two\nlines\n"])
def test_run_returns_the_output_and_nothing_else(systemd_run, output):
    systemd_run()
    assert sandbox.run(["printf", "%s", output], unit="x", user="u") == output


def test_units_have_names_of_their_own(systemd_run):
    arguments = systemd_run()
    names = set()
    for _turn in range(2):
        sandbox.run(["true"], unit="flask-hello.build", user="u")
        names |= {word for word in arguments.read_text().splitlines() if word.startswith("--unit=")}
    assert len(names) == 2
    assert all(name.startswith("--unit=flask-hello.build-") for name in names)


def test_a_command_that_systemd_stopped_has_failed(systemd_run):
    systemd_run("echo half; exit 0")
    with pytest.raises(CommandFailed, match="^was stopped before it was done$") as caught:
        sandbox.run(["x"], unit="x", user="u")
    assert (caught.value.output, caught.value.status) == (["half"], None)


@pytest.mark.parametrize("limit, problem, status", [(0, "was ended after 0 s", None), (60, "exited with status 1", 1)])
def test_a_command_that_took_too_long(systemd_run, limit, problem, status):
    systemd_run("echo half; exit 1")
    with pytest.raises(CommandFailed, match=f"^{problem}$") as caught:
        sandbox.run(["x"], unit="x", user="u", limit=limit)
    assert (caught.value.output, caught.value.status) == (["half"], status)


def test_a_command_without_network_whose_output_is_in_order(systemd_run):
    arguments = systemd_run()
    command = ["/bin/sh", "-c", "echo one; echo two >&2; echo three"]
    assert sandbox.run(command, unit="x", user="u", network=False, merged=True) == "one\ntwo\nthree\n"
    assert "--property=PrivateNetwork=yes" in arguments.read_text().splitlines()


def test_stop_ends_all_that_runs_under_a_name(systemd_run):
    arguments = systemd_run("exit 5", name="systemctl")
    sandbox.stop("flask-hello.build")
    assert arguments.read_text().splitlines() == ["stop", "flask-hello.build-*.service"]
