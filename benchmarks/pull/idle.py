# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pull costs a host, in seconds, processor seconds and memory. Run there as root: python3 idle.py [TIMES].

Memory is the most that all processes of the service had at once, what they share counted once (their PSS), sampled.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import subprocess
import sys
import time

SERVICE = "flaskfleet-pull.service"
PROCESSES = f"/sys/fs/cgroup/**/{SERVICE}/cgroup.procs"


def memory(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            total += int(re.search(r"^Pss: +(\d+)", stream.read(), re.MULTILINE)[1])
    return total / 1024


def pull():
    started = time.monotonic()
    most, path = 0.0, ""
    process = subprocess.Popen(["systemctl", "start", SERVICE])
    while process.poll() is None:
        path = path or next(iter(glob.glob(PROCESSES, recursive=True)), "")
        with contextlib.suppress(OSError), open(path, encoding="ascii") as stream:
            most = max(most, memory(stream.read().split()))
        time.sleep(0.05)
    with open("/var/lib/flaskfleet/pull/result.json", encoding="utf-8") as stream:
        result = json.load(stream)
    return {
        "state": result["state"],
        "changed": result["changed"],
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": result["cpu_seconds"],
        "memory_mib": round(most),
    }


for _time in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
    print(json.dumps(pull()), flush=True)
