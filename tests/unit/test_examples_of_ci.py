# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/ci and the settings of pre-commit name what is there. That they run is not shown here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
GITHUB, GITLAB = (PROJECT / "examples" / "ci" / name for name in ("github-actions.yml", "gitlab-ci.yml"))
SCENARIOS = sorted(path.parent.name for path in PROJECT.glob("molecule/*/molecule.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_github_runs_every_scenario_with_real_images():
    jobs = load(GITHUB)["jobs"]
    [listing] = [step["run"] for step in jobs["scenarios"]["steps"] if "run" in step]
    command = re.search(r"\$\((.*)\)", listing)[1]
    if shutil.which("jq"):
        listed = subprocess.run(["bash", "-c", command], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        assert json.loads(listed) == SCENARIOS
    assert jobs["molecule"]["env"]["FLASKFLEET_IMAGES"] == "official"
    for job in jobs.values():
        assert job["runs-on"] and job["timeout-minutes"]
        for step in job["steps"]:
            assert len(step.keys() & {"uses", "run"}) == 1


def test_gitlab_runs_every_scenario_with_real_images():
    content = load(GITLAB)
    assert content["molecule"]["script"] == ["make molecule"]
    assert content["molecule"]["variables"]["FLASKFLEET_IMAGES"] == "official"
    assert {content[name]["stage"] for name in ("fast", "molecule")} == set(content["stages"])


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.stem)
def test_they_call_make_as_people_do_and_say_that_they_have_not_run(path):
    text = path.read_text(encoding="utf-8")
    lines = re.findall(r"^\s*- (?:run: )?make ([a-z ]+)", text, re.MULTILINE)
    called = {word for line in lines for word in line.split()}
    assert called and called <= TARGETS
    assert "NOT RUN YET" in text


def test_pre_commit_calls_linters_of_the_checkout():
    [repository] = load(PROJECT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    wanted = (PROJECT / "requirements" / "dev.in").read_text(encoding="utf-8")
    for hook in repository["hooks"]:
        tool = re.match(r"\.venv/bin/(\w+)", hook["entry"])[1]
        assert re.search(rf"^{tool}\b", wanted, re.MULTILINE), tool
