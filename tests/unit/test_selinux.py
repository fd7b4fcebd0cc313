# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module of SELinux's policy. The compiler checks its form with declarations that stand for those of the policy.

What the policy of a real host makes of it, nothing here shows.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from test_role_templates import renderer
from test_sites import DOCS, RED_HAT, plan_of, words

POLICY = """
(mls true)
(class unix_stream_socket (connectto))
(class tcp_socket (name_connect))
(classorder (unix_stream_socket tcp_socket))
(sid kernel)
(sidorder (kernel))
(sensitivity s0)
(sensitivityorder (s0))
(user system_u)
(role object_r)
(userrole system_u object_r)
(userlevel system_u (s0))
(userrange system_u ((s0) (s0)))
(type kernel_t) (type httpd_t) (type init_t) (type unconfined_service_t) (type httpd_var_run_t) (type http_port_t)
(roletype object_r kernel_t) (roletype object_r httpd_var_run_t)
(typeattribute port_type)
(typeattributeset port_type (http_port_t))
(allow kernel_t kernel_t (unix_stream_socket (connectto)))
(sidcontext kernel (system_u object_r kernel_t ((s0) (s0))))
"""
PLATFORM = {**RED_HAT, "selinux_module": "/var/lib/flaskfleet/flaskfleet.cil"}


def module(*sites, **variables):
    [file] = plan_of(*sites, platform=PLATFORM, **variables)["selinux_files"]
    return renderer(role="nginx_site").render(file["template"], file["vars"])


def compiled(folder, module):
    """The file contexts that the compiler makes of it: {pattern: context}."""
    (folder / "policy.cil").write_text(POLICY)
    (folder / "flaskfleet.cil").write_text(module)
    command = ["secilc", "--output", "policy", "--filecontexts", "contexts", "policy.cil", "flaskfleet.cil"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(line.split() for line in (folder / "contexts").read_text().splitlines())


@pytest.mark.skipif(not shutil.which("secilc"), reason="no secilc, which scripts/setup installs")
@pytest.mark.parametrize("upstream", ["127.0.0.1:8000", "unix:/run/a.sock"])
def test_its_form(tmp_path, upstream):
    sockets = "system_u:object_r:httpd_var_run_t:s0"
    site = {**DOCS, "root": "", "upstream": [upstream]}
    assert compiled(tmp_path, module(site)) == {
        "/run/flask_apps(/.*)?": sockets,
        "/var/run/flask_apps(/.*)?": sockets,
    }


@pytest.mark.parametrize(
    "root, patterns",
    [
        ("/run/web.apps", [r"/run/web\.apps", r"/var/run/web\.apps"]),
        ("/var/run/apps", ["/run/apps", "/var/run/apps"]),
        ("/srv/run/apps", ["/srv/run/apps"]),
    ],
)
def test_the_folder_of_the_sockets(root, patterns):
    lines = [line for line in words(module(flask_app_runtime_root=root)) if line.startswith("(filecon")]
    assert [line.split('"')[1] for line in lines] == [f"{pattern}(/.*)?" for pattern in patterns]


@pytest.mark.parametrize(
    "changes, network",
    [
        ({}, False),
        ({"root": "", "upstream": ["unix:/run/a.sock"]}, False),
        ({"root": "", "upstream": ["unix:/run/a.sock", "app1:8000 backup"]}, True),
        ({"root": "", "upstream": ["app1:8000"], "state": "absent"}, False),
    ],
)
def test_the_network_is_for_sites_that_lead_there(changes, network):
    assert ("name_connect" in module({**DOCS, **changes})) is network


def test_other_distributions_get_none():
    assert plan_of(DOCS)["selinux_files"] == []
