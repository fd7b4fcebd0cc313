# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that somebody made to harm: what one app installs reaches neither root nor another app.

The host itself serves the index of packages that hostile_index.py makes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import NETWORK

INDEX = "/var/tmp/hostile-index"
PORT = 8899
CACHE = "/var/cache/flask_apps"


def app(name, **keys):
    """A small app, of the index that the host has unless it names another."""
    repository = f"git://{NETWORK['test_network_gateway']}/hello.git"
    common = {"domain": f"{name}.test", "repository": repository, "version": "master", "settle": 0}
    return {"name": name, **common, **keys}


@pytest.fixture(scope="module", autouse=True)
def index(machine):
    """The hostile one is served, and there is an app from the usual one."""
    machine.deploy(flask_apps=[app("trusting")])
    python = "/opt/flask_apps/trusting/current/build/.venv/bin/python"
    pip = f"$(echo /opt/flask_apps/.tools/uv-*/bin/python) -m pip --python {python}"
    machine.output(f"rm -rf {INDEX}; mkdir -p {INDEX}")
    frozen = "/opt/flask_apps/trusting/current/build/.venv/requirements.lock"
    machine.output(f"{pip} download --quiet --no-deps --only-binary :all: --dest {INDEX} --requirement {frozen}")
    program = (Path(__file__).parent / "hostile_index.py").read_text()
    machine.output(f"python3 - {INDEX} <<'END'\n{program}END")
    serve = f"python3 -m http.server --bind 127.0.0.1 --directory {INDEX} {PORT}"
    machine.output(f"systemd-run --quiet --unit=hostile-index {serve}")
    yield
    machine.output(f"systemctl stop hostile-index; rm -rf {INDEX} /tmp/started-by-*")
    machine.deploy(flask_apps=[app(name, state="absent") for name in ("trusting", "trapped", "wary")])


def trapped(*packages):
    """The variables of an app that takes all its packages from the hostile index, these among them."""
    index = f"http://127.0.0.1:{PORT}/simple"
    return {"flask_apps": [app("trapped", index_url=index, extra_packages=list(packages))]}


def found(machine, name, path):
    """Files of an app's environment."""
    return machine.output(f"find /opt/flask_apps/{name}/current/build/.venv -path '*/{path}'").split()


def test_packages_of_another_index_stay_with_who_names_it(machine):
    machine.deploy(**trapped())
    assert found(machine, "trapped", "flask/poisoned.py")
    assert not found(machine, "trusting", "flask/poisoned.py")
    machine.deploy(flask_apps=[app("wary")])
    assert found(machine, "wary", "flask/app.py") and not found(machine, "wary", "flask/poisoned.py")


def test_nothing_of_a_package_is_run_outside_of_the_sandbox_of_its_app(machine):
    machine.deploy(**trapped("starter"))
    assert found(machine, "trapped", "starter.pth")
    assert not machine.output("find /tmp -maxdepth 1 -name 'started-by-*'")  # its own /tmp lies deeper
    machine.output("/opt/flask_apps/trapped/current/build/.venv/bin/python -c pass; rm /tmp/started-by-0")


@pytest.mark.parametrize("package", ["climber", "datum"])
def test_a_package_that_writes_elsewhere(machine, package):
    before = machine.live("trusting")
    machine.attempt(**trapped(package))  # installed or refused, both will do
    assert f"GET /simple/{package}/{package}-1.0" in machine.output("journalctl --no-pager --unit=hostile-index")
    assert machine.output(f"find {CACHE}/.wheels {CACHE}/.sets /tmp -name poison") == ""
    assert machine.live("trusting") == before and machine.get("trusting.test", "/health")[0] == 200


def test_what_apps_have_of_a_set_is_their_own(machine):
    """No hard link into it, by which one could change all; and nothing that somebody else may write."""
    for name in ("trusting", "trapped"):
        build = machine.output(f"realpath /opt/flask_apps/{name}/current/build").strip()
        assert machine.output(rf"find {build} -type f \( -links +1 -o ! -user root -o -perm /022 \)") == ""
    assert machine.output(f"find {CACHE}/.sets ! -user root") == ""
    modes = machine.output(f"stat --format '%U %a' {CACHE}/.sets {CACHE}/.wheels").splitlines()
    assert modes == ["root 700", "flaskfleet-fetch 700"]
