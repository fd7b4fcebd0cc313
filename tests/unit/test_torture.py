# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the torture campaign would only show after hours that it is of no use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[1] / "torture"


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(TORTURE))
    import mutants

    return mutants


def test_mutants_can_be_grown(mutants):
    for mutant in mutants.MUTANTS:
        text = (TORTURE.parents[1] / "plugins" / "module_utils" / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.text) == 1, mutant.name


PROGRAM = """
import concurrent.futures, os, sys, time
root = sys.argv[1]
def write(number):
    with open(os.path.join(root, f"file{number}"), "w") as stream:
        stream.write("x")
        stream.flush()
        os.fsync(stream.fileno()) if number % 2 else None
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(40)))
open(os.path.join(root, "done"), "w").close()
time.sleep(0.5)
open(os.path.join(root, "later"), "w").close()
"""


@pytest.fixture
def trapped(tmp_path):
    """Run PROGRAM, as a module of the collection, with the trap set; returns the process and the folder."""
    trap = (TORTURE / "trap.py").read_text(encoding="utf-8")
    trap = trap.replace('FOLDER = "/var/lib/flaskfleet-torture"', f'FOLDER = "{tmp_path}/trap"')
    trap = trap.replace('("/opt/", ', f'("{tmp_path}/files", ')
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(trap)
    for folder in ("trap", "files", "modules"):
        (tmp_path / folder).mkdir()
    program = tmp_path / "modules" / "app_build.py"
    program.write_text(PROGRAM)

    def run(**settings):
        (tmp_path / "trap" / "trap.json").write_text(json.dumps(settings))
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, str(program), str(tmp_path / "files")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_every_step_of_every_thread_is_seen(trapped, tmp_path):
    done = trapped(record=True)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "trap" / "steps.jsonl").read_text().splitlines()]
    written = [each["what"] for each in steps if each["what"].startswith("write ")]
    assert len(written) == 42 and {each["program"] for each in steps} == {"app_build"}


@pytest.mark.parametrize("delay, done", [(0, False), (0.2, True)])
def test_a_blow_hits_at_its_step_or_later(trapped, tmp_path, delay, done):
    trapped(record=True)
    steps = [json.loads(line)["what"] for line in (tmp_path / "trap" / "steps.jsonl").read_text().splitlines()]
    [what] = [each for each in steps if each.endswith("/done")]
    for name in ("done", "later"):
        (tmp_path / "files" / name).unlink()
    assert trapped(program="app_build", what=what, time=1, blow="kill", delay=delay).returncode == -9
    assert (tmp_path / "files" / "done").exists() is done and not (tmp_path / "files" / "later").exists()
    assert json.loads((tmp_path / "trap" / "halted").read_text())["what"] == what
