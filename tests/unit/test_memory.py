# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of processes that really run, and the guard over what is left."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import memory
from ansible_collections.flaskfleet.deploy.plugins.module_utils.memory import MIB, Guard, NotEnough

# holds 40 MiB of its own, and has a child that holds as much
HOLDER = """
import os, sys
block = os.urandom(40 * 2**20)
child = os.fork()
if not child:
    block = os.urandom(40 * 2**20)
print("held", flush=True)
sys.stdin.readline()
"""


def test_used_counts_the_children():
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert [process.stdout.readline() for _each in range(2)] == [b"held\n"] * 2
        assert len(memory.children(process.pid)) == 1
        assert 80 * MIB < memory.used(str(process.pid)) < 140 * MIB
        process.communicate(b"\n\n")


@pytest.mark.parametrize("pid", ["0", "999999999", ""])
def test_what_does_not_run_uses_nothing(pid):
    assert memory.used(pid) == 0
    assert memory.children(pid) == []


def test_available():
    assert 0 < memory.available() < 2**50


def test_claims_of_several_releases_add_up(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000 * MIB)
    guard = Guard(100 * MIB)
    order = []

    def last():
        with guard.claim(1 * MIB):
            order.append("last")

    with contextlib.ExitStack() as running:
        running.enter_context(guard.claim(500 * MIB))
        running.enter_context(guard.claim(400 * MIB))
        waiting = threading.Thread(target=last)
        waiting.start()  # while others start it waits: what they use already may be counted twice
        waiting.join(0.2)
        order.append("first")
    waiting.join(5)
    assert order == ["first", "last"]


def test_nobody_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000 * MIB)
    guard = Guard(100 * MIB)
    with pytest.raises(NotEnough, match="100 MiB are to stay free, and 1000 MiB are available"), guard.claim(901 * MIB):
        pass
    with guard.claim(900 * MIB), guard.claim(0):
        pass
