# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a unit uses and how much the host has left, so that a second release is not what fills it."""

from __future__ import annotations

import contextlib
import os
import re
import threading

MIB = 2**20


class NotEnough(Exception):
    """A release would not fit beside the one it replaces; the text says what it needs and what there is."""


def available():
    """Bytes that can be had without swapping, as the kernel estimates it (MemAvailable, proc_meminfo(5))."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        return int(re.search(r"MemAvailable:\s*(\d+)", stream.read())[1]) * 1024


def used(pid):
    """Bytes that a process and its descendants use: the sum of their proportional shares (Pss, proc_pid_smaps(5)).

    Not the count of their cgroup, which has the page cache in it and is missing where memory is not accounted for.
    """
    with contextlib.suppress(OSError):  # ended meanwhile
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as stream:
            own = re.search(r"^Pss:\s*(\d+)", stream.read(), re.MULTILINE)  # of one that just ended there is none
        return (int(own[1]) * 1024 if own else 0) + sum(used(child) for child in children(pid))
    return 0


def children(pid):
    """Process ids of the children of a process, as text; none when it has ended."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as stream:
                found += stream.read().split()
    return found


def _shortage(size, reserve, free):
    needed, kept, there = (max(each, 0) // MIB for each in (size, reserve, free))
    return (
        f"a second release needs about {needed} MiB beside the live one, {kept} MiB are to stay free, and"
        f" {there} MiB are available: nothing was started"
    )


class Guard:
    """Lets releases start side by side as long as there is memory for them.

    :param reserve: bytes that must stay available
    """

    def __init__(self, reserve):
        self._reserve = reserve
        self._claims = []  # of releases that start: how much of it they use already is not known
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def claim(self, size):
        """Hold ``size`` bytes for a release while it starts. Waits while others start that may leave room after all.

        :param size: 0 for one that needs none beside what is there
        :raises NotEnough: they are not there, and nobody starts
        """
        if not size:
            yield
            return
        with self._changed:
            while size + self._reserve > (free := available() - sum(self._claims)):
                if not self._claims:
                    raise NotEnough(_shortage(size, self._reserve, free))
                self._changed.wait()
            self._claims.append(size)
        try:
            yield
        finally:
            with self._changed:
                self._claims.remove(size)
                self._changed.notify_all()
