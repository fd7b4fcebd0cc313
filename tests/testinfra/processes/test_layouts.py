# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How apps come: as a package with a script and a part in C, with folders of their own, for a certain Python."""

from __future__ import annotations

import json

import pytest

PARTS = ("--tags", "build,release")
SHARED = "/var/lib/flask_apps/crew/shared"
CONFIGURATION = f"{SHARED}/src/instance/settings.cfg"


def crew(**changes):
    return {
        "flask_apps": "{{ test_layout_apps }}",
        "flask_app_only": ["crew"],
        "flask_app_overrides": {"crew": changes},
    }


def seen(machine):
    return json.loads(machine.get("crew.test", "/health")[1])


def notes(machine):
    return {who for who, _release in json.loads(machine.get("crew.test", "/notes")[1])}


@pytest.fixture
def noted(machine):
    """The web process, a worker, a schedule and a command have all written into the instance folder."""
    machine.output("curl --silent --fail --request POST --header 'Host: crew.test' http://127.0.0.1/notes")
    machine.output("systemctl start flask-crew.nightly.service")
    machine.output("flask-app crew flask note command")
    return {"web", "worker", "schedule", "command"}


def test_a_package_is_installed_with_what_it_brings(machine):
    found = seen(machine)
    assert found["instance"].endswith("/src/instance") and found["length"] == 4
    unit = f"flask-crew.worker@{machine.live('crew')['release']}:1.service"
    assert machine.property(unit, "ActiveState") == "active", "its console script runs"


def test_shared_folders_outlive_releases(machine, noted):
    assert notes(machine) >= {"build", *noted}, "the first build filled it"
    before = machine.live("crew")
    assert machine.output(f"stat --format='%U %a' {SHARED}/src/instance") == "flask-crew 700"
    assert seen(machine)["greeting"] == "of the commit"
    machine.output(f"echo 'GREETING = \"of the host\"' > {CONFIGURATION}")
    machine.deploy(*PARTS, **crew(version="version2"))
    assert machine.get("crew.test")[1] == "2" and machine.live("crew")["build"] != before["build"]
    assert seen(machine)["greeting"] == "of the host" and notes(machine) >= noted
    machine.deploy(playbook="rollback", **crew())
    assert machine.get("crew.test")[1] == "1" and seen(machine)["greeting"] == "of the host"


def test_a_shared_folder_that_is_gone_is_made_as_at_first(machine):
    machine.output(f"mv {SHARED}/src/instance {SHARED}/kept")
    assert "changed=0" not in machine.deploy("--check", *PARTS, **crew())
    assert not machine.host.file(CONFIGURATION).exists
    machine.deploy(*PARTS, **crew())
    assert machine.output(f"cat {CONFIGURATION}") == 'GREETING = "of the commit"'
    machine.output(f"rm -r {SHARED}/src/instance; mv {SHARED}/kept {SHARED}/src/instance")


def test_who_writes_elsewhere_is_told_what_to_share(machine):
    before = machine.live("crew")["release"]
    changes = {"env": {"CREW_WRITES": "logs"}}
    result = machine.attempt(*PARTS, **crew(**changes))
    said = " ".join(result.stdout.split())
    assert result.returncode != 0 and machine.live("crew")["release"] == before
    assert "the app may not write into its own code: `shared_paths: [logs]` gives it that folder" in said
    machine.deploy(*PARTS, **crew(shared_paths=["src/instance", "logs"], **changes))
    assert machine.output(f"cat {SHARED}/logs/log") == "written"


def test_a_python_that_the_host_cannot_have(machine):
    result = machine.attempt(**crew(python="3.8"))
    said = " ".join(result.stdout.split())
    assert result.returncode != 0 and "changed=0" in said
    assert "crew: `python` can't be 3.8 on this host, whose distribution does not ship it; it can be 3." in said


def test_the_python_that_is_asked_for(machine):
    """On EL the distribution's packages of that version are installed for it."""
    version = machine.output("""python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'""")
    variables = crew(python=version)
    variables.update(flask_app_only=["annex"], flask_app_overrides={"annex": {"python": version}})
    machine.deploy("--tags", "packages,build,release", **variables)
    assert version in machine.output("/opt/flask_apps/annex/current/build/web/../.venv/bin/python --version")
    assert machine.get("annex.test")[0] == 200


def test_removal_keeps_what_is_shared(machine):
    """It is here since nothing may come after it."""
    machine.deploy(**crew(state="absent"))
    assert machine.host.file(f"{SHARED}/src/instance/crew.sqlite").exists
    assert not machine.host.file("/opt/flask_apps/crew").exists
