# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a host lacks, from data bases in the shape of dpkg's and rpm's."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.modules import packages

STATUS = """\
Package: nginx
Status: install ok installed
Priority: optional
Description: small, powerful web server
Version: 1.26

Package: renamed
Former-Package: not-a-package
Status: install ok installed

Package: bash
Essential: yes
Status: install ok installed

Package: libgcc-s1
Protected: yes
Status: install ok installed

Package: no-status

Package: held
Status: hold ok installed
Version: 1

Package: removed
Status: deinstall ok config-files
Version: 1

Package: purged
Status: purge ok not-installed

Package: half
Status: install ok half-installed
Version: 1

Package: broken
Status: install reinstreq half-configured
Version: 1

Package: unpacked
Status: install ok unpacked
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same

Package: last
Status: install ok installed
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the module; returns its result."""

    def run(*names, **options):
        with patch_module_args({"names": list(names), **options}), pytest.raises(SystemExit):
            packages.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def dpkg(tmp_path, monkeypatch):
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setattr(packages, "DPKG_STATUS", str(tmp_path / "status"))


@pytest.mark.parametrize(
    "name, missing",
    [
        ("nginx", False),
        ("held", False),
        ("bash", False),
        ("libgcc-s1", False),
        ("no-status", True),
        ("libc6", False),
        ("last", False),
        ("removed", True),
        ("purged", True),
        ("half", True),
        ("broken", True),
        ("unpacked", True),
        ("never-heard-of", True),
        ("not-a-package", True),
        ("ngin", True),
        ("nginx=1.26", True),
        ("n.inx", True),
    ],
)
def test_dpkg(dpkg, run, name, missing):
    assert run(name)["missing"] == ([name] if missing else [])


def test_the_order_stays(dpkg, run):
    result = run("zsh", "nginx", "ack")
    assert (result["missing"], result["changed"]) == (["zsh", "ack"], False)
    assert run()["missing"] == []


RPM = """#!/bin/sh
while [ "$1" != -- ]; do shift; done; shift
status=0
for name; do
    case $name in
        nginx | git) echo "$name" ;;
        *) echo "package $name is not installed"; status=1 ;;
    esac
done
exit $status
"""


def test_sources(dpkg, run):
    result = run("zsh", "nginx", sources=["ack", "bash", "epel-release"])
    assert (result["missing"], result["missing_sources"]) == (["zsh"], ["ack", "epel-release"])


def test_rpm(tmp_path, monkeypatch, run):
    monkeypatch.setattr(packages, "DPKG_STATUS", str(tmp_path / "no such file"))
    (tmp_path / "rpm").write_text(RPM)
    (tmp_path / "rpm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert run("nginx", "@web", "git", "package")["missing"] == ["@web", "package"]


APT = """#!/bin/sh
case $1 in
    search) cat {lists} ;;
    *) touch {updated} ;;
esac
"""
DNF = """#!/bin/sh
case $* in
    *--cacheonly*) exit 1 ;;
    *"python3.*") echo "Error: No matching Packages to list" >&2; exit 1 ;;
    *) [ -s {lists} ] || {{ echo "Error: No matching Packages to list" >&2; exit 1; }}; cat {lists} ;;
esac
"""
APT_LISTS = "python3.12 - Interactive high-level language\npython3.13 - Interactive\n"
DNF_LISTS = """Available Packages
python3.11.x86_64         3.11.11-2.el9     appstream
python3.12.x86_64         3.12.5-2.el9      appstream
python3.12-pip.noarch     23.2.1-4.el9      appstream
"""
WANTED = [{"version": "3.9", "apps": ["hello"]}, {"version": "3.12", "apps": ["hello2", "hello3"]}]


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A function that makes a host with Python 3.9 and 3.10 and with these package lists."""

    def make(debian, lists):
        (tmp_path / "status").write_text(STATUS)
        monkeypatch.setattr(packages, "DPKG_STATUS", str(tmp_path / ("status" if debian else "nothing")))
        monkeypatch.setattr(packages, "EXECUTABLES", str(tmp_path / "python3.*"))
        (tmp_path / "lists").write_text(lists)
        text = (APT if debian else DNF).format(lists=tmp_path / "lists", updated=tmp_path / "updated")
        for name in ("apt-get", "apt-cache") if debian else ("dnf", "rpm"):
            (tmp_path / name).write_text(text if name != "rpm" else RPM)
            (tmp_path / name).chmod(0o755)
        for name in ("python3.9", "python3.10", "python3.10-config"):
            (tmp_path / name).write_text("")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path

    return make


def test_interpreters_of_debian(host, run):
    folder = host(True, APT_LISTS)
    assert run("nginx", interpreters=WANTED[:1])["missing"] == [] and not (folder / "updated").exists()
    assert run("zsh", interpreters=WANTED)["missing"] == ["zsh", "python3.12", "python3.12-venv"]
    assert (folder / "updated").exists()


def test_interpreters_of_red_hat(host, run):
    host(False, DNF_LISTS)
    assert run("nginx", interpreters=WANTED)["missing"] == ["python3.12"]


@pytest.mark.parametrize(
    "debian, lists, possible",
    [
        (True, APT_LISTS, "3.9, 3.10, 3.12, 3.13"),
        (False, DNF_LISTS, "3.9, 3.10, 3.11, 3.12"),
        (True, "", "3.9, 3.10"),
        (False, "", "3.9, 3.10"),
    ],
)
def test_an_interpreter_that_a_host_cannot_have(host, run, debian, lists, possible):
    host(debian, lists)
    result = run("zsh", interpreters=[WANTED[0], {"version": "3.8", "apps": ["one", "two"]}])
    why = "`python` can't be 3.8 on this host, whose distribution does not ship it; it can be"
    assert result["failed"] and result["msg"].splitlines() == [f"{app}: {why} {possible}" for app in ("one", "two")]


@pytest.mark.parametrize("debian", [True, False])
def test_a_check_of_a_bare_host_knows_no_lists(host, run, debian):
    folder = host(debian, "")
    result = run("zsh", interpreters=WANTED[1:], _ansible_check_mode=True)
    assert result["missing"][:2] == ["zsh", "python3.12"] and not (folder / "updated").exists()


def test_this_machine(run):
    """What dpkg itself says, where it is the package manager."""
    try:
        command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no dpkg")
    packages = [line.split()[-1] for line in output.splitlines() if line.startswith("installed ")]
    assert len(packages) > 10
    assert run(*packages, "never-heard-of")["missing"] == ["never-heard-of"]
