# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments through the real systemd, byte for byte: what is given is what each kind of process reads."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.values import environment_problem
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import render_environment
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

DATA = "/var/lib/flask_apps/busy"
COUNT, ROUNDS = 5200, 4
# What systemd, shells and Jinja treat as special, more often than by chance.
SPECIAL = [
    "\\",
    '"',
    "'",
    "$",
    "${HOME}",
    "`",
    "%",
    "%i",
    "\n",
    "\\\n",
    "\r",
    "\t",
    "#",
    ";",
    " ",
    "=",
    "\x7f",
    "ä",
    "€",
    "😀",
]
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(SPECIAL), max_size=12).map("".join))
EDGES = ["", " ", "\n", "\\", "a\\", '"', "x" * 32768, "\\" * 32768, "\n" * 32768, '€$`"' * 8192]


def values(count):
    """As many different values that can be carried."""
    found = dict.fromkeys(EDGES)

    # as many as it takes: some are the same, some can't be carried
    @settings(max_examples=count * 2, phases=[Phase.generate], database=None, derandomize=True, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(TEXTS)
    def draw(text):
        if not environment_problem("X", text):
            found[text] = None

    draw()
    assert len(found) >= count
    return list(found)[:count]


def digests(variables):
    return {name: hashlib.sha256(str(value).encode()).hexdigest() for name, value in variables.items()}


def read_by_all(busy, expected):
    """Have each kind of process tell what it reads; returns how many values were read."""
    machine = busy.machine
    assert json.loads(machine.get("busy.test", "/environment")[1]) == expected
    assert json.loads(machine.output("flask-app busy flask environment")) == expected
    machine.output("systemctl start flask-busy.tidy.service")
    assert json.loads(machine.output(f"cat {DATA}/environment.schedule")) == expected
    pid = machine.property(busy.unit(), "MainPID")
    assert json.loads(machine.output(f"cat {DATA}/environment.worker-{pid}")) == expected
    return 4 * len(expected)


def test_what_the_list_says_is_what_processes_read(busy, record_property):
    """All the way: from the list to each process."""
    jinja = re.compile("{[{%#]")  # in extra variables that is a template
    texts = [text for text in values(600) if not jinja.search(text) and len(text) < 2000][:300]
    given = {f"ROUND_{number}": text for number, text in enumerate(texts)}
    env = {name: value for name, value in given.items() if int(name[6:]) % 2}
    busy.deploy(env=env, secrets={name: value for name, value in given.items() if name not in env})
    busy.settle()
    read = read_by_all(busy, digests(given))
    record_property("told", f"{busy.machine.name}: {len(given)} values of the list were read {read} times")


def test_thousands_of_values(busy, record_property):
    """In the files and by the units of a release, in several rounds."""
    machine, texts = busy.machine, values(COUNT)
    type(busy).unchanged = False
    file = f"/opt/flask_apps/busy/releases/{busy.live}/environment"
    units = f"{machine.unit('busy')} {busy.unit()}"
    read = 0
    for number in range(ROUNDS):
        given = {f"ROUND_{index}": text for index, text in enumerate(texts[number::ROUNDS])}
        content = base64.b64encode(render_environment(given).encode()).decode()
        for index, start in enumerate(range(0, len(content), 100_000)):  # a command line has its limit
            part = content[start : start + 100_000]
            machine.output(f"printf %s '{part}' | base64 -d {'>' if index == 0 else '>>'} {file}")
        machine.output(f"systemctl restart {units}")
        pid = machine.property(busy.unit(), "MainPID")
        busy.wait_for(lambda pid=pid: machine.host.file(f"{DATA}/environment.worker-{pid}").exists)
        read += read_by_all(busy, digests(given))
    machine.output(f"rm {DATA}/environment.*")
    assert len(set(texts)) == COUNT
    record_property(
        "told", f"{machine.name}: {COUNT} values were read {read} times by web, worker, schedule and command"
    )
