# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operations.md says to type on a machine, typed there, for the app busy in place of hello."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
NAMES = {"hello.example.org": "busy.test", "hello": "busy", "cleanup": "tidy"}  # what is called otherwise here
BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^\| [^|]+ \| (`[^|]+) \|$", re.MULTILINE)  # a row of a table that ends with commands


def commands():
    """The page's commands, in its order."""
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    lines += [command for cell in CELL.findall(text) for command in re.findall(r"`([^`]+)`", cell)]
    for old, new in NAMES.items():
        lines = [re.sub(rf"\b{old}\b", new, line) for line in lines]
    known = re.compile("flask-app|systemctl|curl|journalctl|tail|readlink|cat|ls|nginx|du")
    return [line for line in lines if known.match(line) and " " in line]


def test_what_the_page_says_works(machine, busy):
    found = commands()
    assert any("systemctl restart" in each for each in found) and len(found) > 20
    before = busy.running()
    for command in found:
        follows = command.startswith("tail -f")
        limit = 1 if follows else 60
        result = machine.host.run(f"timeout {limit} sh -c {shlex.quote(command)} < /dev/null")
        assert result.rc == (124 if follows else 0), (command, result.rc, result.stdout, result.stderr)
        nothing = "journalctl" in command and "No entries" in result.stdout
        assert not nothing or ".worker" in command, command  # this worker writes into a file
    assert machine.get("busy.test", "/health")[0] == 200
    busy.wait_for(lambda: busy.running() == before)
