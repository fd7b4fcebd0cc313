# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/release in a repository of its own, and its artefact, installed and used as other people do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
VERSION = "99.0.0"
# nobody's own settings of git: no signatures, no hooks
SETTINGS = {"commit.gpgsign": "false", "tag.gpgsign": "false", "core.hooksPath": os.devnull}
IDENTITY = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# what Ansible is told by whoever runs the tests, which people who use the artefact are not
OWN = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_COLLECTIONS_PATHS")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OWN} | IDENTITY
ENVIRONMENT["GIT_CONFIG_COUNT"] = str(len(SETTINGS))
for number, (key, value) in enumerate(SETTINGS.items()):
    ENVIRONMENT.update({f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value})
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"

pytestmark = pytest.mark.skipif(
    not shutil.which("antsibull-changelog", path=ENVIRONMENT["PATH"]) or not (PROJECT / ".git").exists(),
    reason="releases are made in a checkout, with the tools of requirements/dev.txt",
)


def run(*command, folder, check=True, **environment):
    variables = {**ENVIRONMENT, "TESTS": "none", **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A repository with the files of this one, committed, that has nothing of it but these."""
    folder = tmp_path_factory.mktemp("release") / "checkout"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=PROJECT).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(PROJECT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name, follow_symlinks=False)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All of it"]):
        run("git", *command, folder=folder)
    return folder


@pytest.fixture(scope="module")
def artefact(checkout):
    """A release's tarball."""
    run("scripts/release", VERSION, folder=checkout)
    [found] = (checkout / ".cache" / "release").glob("*.tar.gz")
    return found


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc1", "0.0.0"])
def test_what_is_no_next_version_is_refused(checkout, artefact, version):
    before = run("git", "rev-parse", "HEAD", folder=checkout).stdout
    assert run("scripts/release", version, folder=checkout, check=False).returncode == 1
    assert run("git", "rev-parse", "HEAD", folder=checkout).stdout == before


def test_a_release_is_a_commit_with_a_tag_and_a_changelog(checkout, artefact):
    assert artefact.name == f"flaskfleet-deploy-{VERSION}.tar.gz"
    assert run("git", "status", "--porcelain", folder=checkout).stdout == ""
    assert run("git", "describe", "--exact-match", folder=checkout).stdout == f"v{VERSION}\n"
    assert yaml.safe_load((checkout / "galaxy.yml").read_text())["version"] == VERSION
    summary = yaml.safe_load((PROJECT / "changelogs" / "fragments" / "first-release.yml").read_text())[
        "release_summary"
    ]
    changelog = " ".join((checkout / "CHANGELOG.rst").read_text().split())
    assert f"v{VERSION}" in changelog and summary in changelog


def test_nothing_is_released_that_is_not_committed(checkout, artefact):
    (checkout / "README.md").write_text("changed")
    refused = run("scripts/release", "99.1.0", folder=checkout, check=False)
    run("git", "checkout", "--quiet", "README.md", folder=checkout)
    assert refused.returncode == 1 and "not committed" in refused.stderr


def test_nothing_is_released_that_no_fragment_tells_of(checkout, artefact):
    refused = run("scripts/release", "99.1.0", folder=checkout, check=False)
    assert refused.returncode == 1 and "fragment" in refused.stderr


def test_the_artefact_has_what_people_use_and_nothing_else(artefact):
    with tarfile.open(artefact) as archive:
        names = [Path(name) for name in archive.getnames()]
    used = {"changelogs", "docs", "examples", "meta", "playbooks", "plugins", "roles"}
    about = {"CHANGELOG.rst", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md"}
    assert {path.parts[0] for path in names} == used | about
    assert not [str(path) for path in names if path.name.startswith((".", "test_")) or path.suffix in (".pyc", ".orig")]


SITE = {"name": "docs", "domain": "docs.example.org", "root": "/srv/docs"}
APP = {"name": "hello", "domain": "hello.example.org", "repository": "https://git.example.org/hello.git"}
PLAYBOOKS = {
    "roles": {"roles": ["flaskfleet.deploy.nginx_site", "flaskfleet.deploy.flask_app"]},
    "import": {"tasks": [{"import_role": {"name": "flaskfleet.deploy.flask_app"}, "tags": "apps"}]},
    "include": {
        "tasks": [
            {
                "include_role": {"name": "flaskfleet.deploy.flask_app", "apply": {"tags": ["apps"]}},
                "vars": {"flask_apps": [APP]},
                "tags": ["apps"],
            }
        ]
    },
    "site_alone": {"roles": [{"role": "flaskfleet.deploy.nginx_site", "vars": {"nginx_sites": [SITE]}}]},
    "app_alone": {"roles": [{"role": "flaskfleet.deploy.flask_app", "vars": {"flask_apps": [APP]}}]},
    "databases_alone": {"roles": ["flaskfleet.deploy.backing_service"]},
    "collections": {"collections": ["flaskfleet.deploy"], "roles": ["nginx_site", "flask_app", "hosts_entries"]},
}


@pytest.fixture(scope="module")
def project(artefact, tmp_path_factory):
    """Somebody's own project, with the artefact installed into its folder as ansible-galaxy does."""
    folder = tmp_path_factory.mktemp("project")
    # their dependencies come from Galaxy, which no test asks
    options = ["--no-deps", "--collections-path", "collections"]
    run("ansible-galaxy", "collection", "install", str(artefact), *options, folder=folder)
    (folder / "ansible.cfg").write_text("[defaults]\ncollections_path = collections\n")
    for name, play in PLAYBOOKS.items():
        play = {"hosts": "all", "gather_facts": False, **play}
        (folder / f"{name}.yml").write_text(yaml.dump([play], sort_keys=False))
    return folder


def test_the_collection_is_installed_from_git_as_the_example_of_requirements_says(checkout, artefact, tmp_path):
    """From a repository of this machine in place of the public one."""
    public = yaml.safe_load((PROJECT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    wanted = yaml.safe_load((PROJECT / "examples" / "requirements.yml").read_text(encoding="utf-8"))
    [entry] = wanted["collections"]
    assert (entry["name"], entry["type"]) == (public, "git")
    entry.update(name=f"file://{checkout}", version=f"v{VERSION}")
    (tmp_path / "requirements.yml").write_text(yaml.dump(wanted))
    options = ["--no-deps", "--collections-path", "collections"]
    run("ansible-galaxy", "collection", "install", "-r", "requirements.yml", *options, folder=tmp_path)
    installed = tmp_path / "collections" / "ansible_collections" / "flaskfleet" / "deploy"
    assert (installed / "roles" / "flask_app").exists() and not (installed / "tests").exists()


def test_playbooks_of_other_people_find_the_roles(project):
    playbooks = [f"{name}.yml" for name in PLAYBOOKS]
    run("ansible-playbook", "--inventory", "localhost,", "--syntax-check", *playbooks, folder=project)


def test_playbooks_of_the_artefact_are_called_by_their_names(project):
    installed = project / "collections" / "ansible_collections" / "flaskfleet" / "deploy" / "playbooks"
    names = [f"flaskfleet.deploy.{path.stem}" for path in installed.glob("*.yml")]
    assert names
    run("ansible-playbook", "--inventory", "localhost,", "--syntax-check", *names, folder=project)


def test_tags_reach_into_an_imported_role(project):
    shown = run("ansible-playbook", "--inventory", "localhost,", "--list-tasks", "import.yml", folder=project).stdout
    tags = {line.partition(" : ")[2].partition("\t")[0]: line for line in shown.splitlines() if "TAGS:" in line}
    assert "apps" in tags["Switch traffic to the releases"] and "release" in tags["Switch traffic to the releases"]


def test_an_execution_environment_gets_what_the_controller_needs(project):
    """As ansible-builder reads it out of the installed collection. That an image is built with it is not shown here."""
    if not shutil.which("ansible-builder", path=ENVIRONMENT["PATH"]):
        pytest.skip("ansible-builder is among requirements/dev.txt")
    found = yaml.safe_load(run("ansible-builder", "introspect", "collections", folder=project).stdout)
    assert {line.split()[0] for line in found["python"]} == {"cryptography"}
    assert {line.split()[0] for line in found["system"]} == {"git", "openssh-client", "openssh-clients"}
    example = PROJECT / "examples" / "execution-environment" / "execution-environment.yml"
    run("ansible-builder", "create", "--file", str(example), "--context", "image", folder=project)
    assert "cryptography" not in example.read_text()  # it comes from the collection
    assert (project / "image" / "Containerfile").exists()


@pytest.mark.parametrize(("playbook", "task"), [("include", "Plan the apps"), ("site_alone", "Plan the sites")])
def test_roles_plan_with_nothing_but_their_own_variables(project, playbook, task):
    """On this machine, as far as the plan, which needs no root: ``always`` alone is run."""
    command = ["ansible-playbook", "--inventory", "web1,", "--connection", "local", "--tags", "apps", f"{playbook}.yml"]
    skipped = "packages,services,build,release,sites"
    shown = run(*command, "--skip-tags", skipped, folder=project, ANSIBLE_NOCOLOR="1").stdout
    assert f"{task}]" in shown and "failed=0" in shown
