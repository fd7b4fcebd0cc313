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


class Guard:
    """Lets releases start side by side as long as there is memory for them.

    :param reserve: bytes that must stay available
    """

    def __init__(self, reserve):
        self._reserve = reserve
        self._claimed = 0  # by releases that start and don't use it yet
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def claim(self, size):
        """Hold ``size`` bytes for a release while it starts.

        :raises NotEnough: they are not there
        """
        with self._lock:
            free = available() - self._claimed
            if size + self._reserve > free:
                needed, kept, there = (max(each, 0) // MIB for each in (size, self._reserve, free))
                raise NotEnough(
                    f"a second release needs about {needed} MiB beside the live one, {kept} MiB are to stay free, and"
                    f" {there} MiB are available: nothing was started"
                )
            self._claimed += size
        try:
            yield
        finally:
            with self._lock:
                self._claimed -= size
