# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of scenario pull pull: a repository for each, with this collection, and the keys that sign commits.

fleet.py GATEWAY HOST...    makes them anew, in .cache
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
KEYS = PROJECT / ".cache" / "keys"
REPOSITORIES = PROJECT / ".cache" / "repositories"
PASSWORD = KEYS / "vault-password"
PASSWORD_TEXT = "c4n4ry-of-the-vault"
SECRET = "c4n4ry-of-the-app"
VARIABLES = "inventory/group_vars/appservers/apps.yml"
SITE = [{"name": "Deploy", "import_playbook": "flaskfleet.deploy.site"}]
GIT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "tests",
    "GIT_AUTHOR_EMAIL": "tests@localhost",
    "GIT_COMMITTER_NAME": "tests",
    "GIT_COMMITTER_EMAIL": "tests@localhost",
}


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout.strip()


def head(branch):
    """The commit of a branch of the app hello."""
    return run("git", "--git-dir", REPOSITORIES / "hello.git", "rev-parse", branch)


class Fleet:
    """The repository of a host.

    :param host: its name in the inventory
    :param gateway: where test repositories are served
    """

    def __init__(self, host, gateway):
        self.host = host
        self.bare = REPOSITORIES / f"fleet-{host}.git"
        self.gateway = gateway

    def make(self, artefact):
        """An empty history but for one commit, which is what tests begin with.

        :param artefact: this collection, as a file
        """
        shutil.rmtree(self.bare, ignore_errors=True)
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", self.bare)
        hosts = {"all": {"children": {"appservers": {"hosts": {"ubuntu": {}, "almalinux": {}}}}}}
        requirements = {"collections": [{"name": f"artefacts/{artefact.name}", "type": "file"}]}
        files = {
            "inventory/hosts.yml": json.dumps(hosts),
            "inventory/group_vars/appservers/vault.yml": self._vault(),
            "requirements.yml": json.dumps(requirements),
            "site.yml": json.dumps(SITE),
            f"artefacts/{artefact.name}": artefact.read_bytes(),
        }
        return self.commit("The first", files=files, **self.hello())

    def _vault(self):
        command = [Path(sys.executable).parent / "ansible-vault", "encrypt", "--vault-password-file", PASSWORD]
        return run(*command, "--output", "-", "-", input=f"vault_token: {SECRET}\n")

    def hello(self, **changes):
        """Variables with the app hello."""
        app = {"name": "hello", "domain": "hello.test", "repository": f"git://{self.gateway}/hello.git"}
        app.update(version="master", health_path="/health", settle=1, secrets={"TOKEN": "{{ vault_token }}"})
        return {"flask_apps": [{**app, **changes}]}

    def commit(self, message, signer="alice", files=(), **variables):
        """Add a commit to the branch main, with files and variables of the hosts changed; returns it."""
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder, "clone")
            run("git", "clone", "--quiet", self.bare, clone)
            files = dict(files)
            if variables:
                files[VARIABLES] = json.dumps(variables, indent=2)
            for name, content in files.items():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                (clone / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            git = ["git", "-C", clone, "-c", "gpg.format=ssh", "-c", f"user.signingkey={KEYS / str(signer)}"]
            run(*git, "add", "--all")
            run(*git, "commit", "--quiet", "--allow-empty", "-m", message, *(["-S"] if signer else []), env=GIT)
            run(*git, "push", "--quiet", "origin", "HEAD:main")
            return run(*git, "rev-parse", "HEAD")

    def agent(self, **changes):
        """The file with the variables that the agent was set up with, but for secrets, and changes of them."""
        signer = f"alice@example.org {(KEYS / 'alice.pub').read_text().strip()}"
        variables = {
            "pull_agent_repository": f"git://{self.gateway}/fleet-{self.host}.git",
            "pull_agent_allowed_signers": [signer],
            "pull_agent_galaxy_options": ["--no-deps"],
            "pull_agent_on_calendar": "*-*-* 04:00",
        }
        return {"inventory/group_vars/appservers/agent.yml": json.dumps({**variables, **changes})}

    def variables(self):
        """Those of the hosts, as the branch main has them."""
        return json.loads(run("git", "--git-dir", self.bare, "show", f"main:{VARIABLES}"))

    def back_to(self, commit):
        """What came after a commit never was."""
        run("git", "--git-dir", self.bare, "update-ref", "refs/heads/main", commit)


def main(gateway, *hosts):
    KEYS.mkdir(parents=True, mode=0o700, exist_ok=True)
    for name in ("alice", "mallory"):
        if not (KEYS / name).exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", KEYS / name)
    PASSWORD.write_text(f"{PASSWORD_TEXT}\n")
    with tempfile.TemporaryDirectory() as folder:
        galaxy = [Path(sys.executable).parent / "ansible-galaxy", "collection", "build", "--output-path", folder]
        run(*galaxy, PROJECT)
        [artefact] = Path(folder).glob("*.tar.gz")
        for host in hosts:
            Fleet(host, gateway).make(artefact)


if __name__ == "__main__":
    main(*sys.argv[1:])
