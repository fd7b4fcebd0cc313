# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where code comes from: commits that somebody trusted has signed, packages with hashes that the repository names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from conftest import NETWORK, PROJECT

SERVED = PROJECT / ".cache" / "repositories"
PAGE = 'from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.route("/")\ndef page():\n    return "hello"\n'
WHO = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]


class Supplied:
    """An app of the one host, whose repository the tests write.

    :ivar signer: the line of an allowed_signers file of who signs
    """

    def __init__(self, machine, folder):
        self.machine = machine
        self.repository = f"supplied-{machine.name}.git"
        self.key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", self.key], check=True)
        self.signer = f"tests@localhost {self.key.with_suffix('.pub').read_text().strip()}"
        self.folder = folder / "work"
        self.git("init", "--quiet", "--initial-branch=master", str(self.folder), folder=folder)
        shutil.rmtree(SERVED / self.repository, ignore_errors=True)
        self.git("init", "--quiet", "--bare", str(SERVED / self.repository), folder=folder)

    def git(self, *words, folder=None):
        command = ["git", "-C", folder or self.folder, *WHO, *words]
        environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    def commit(self, requirements, signed=False):
        """A commit on master, which is served then; returns its name."""
        (self.folder / "app.py").write_text(PAGE)
        (self.folder / "requirements.txt").write_text(requirements)
        self.git("add", "--all")
        words = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.key}", "commit"]
        self.git(*words, "-S" if signed else "--no-gpg-sign", "--quiet", "--allow-empty", "--message", "A commit")
        self.git("push", "--quiet", "--force", str(SERVED / self.repository), "master")
        return self.git("rev-parse", "HEAD")

    def variables(self, **keys):
        repository = f"git://{NETWORK['test_network_gateway']}/{self.repository}"
        app = {"name": "supplied", "domain": "supplied.test", "repository": repository, "version": "master"}
        return {"flask_apps": [{**app, "settle": 0, **keys}]}

    def deploy(self, **keys):
        self.machine.deploy(**self.variables(**keys))
        return self.machine.live("supplied")["commit"]

    def fail(self, **keys):
        """Deploy in vain; returns what was said, in one line, when what served before still does."""
        before = self.machine.live("supplied")
        result = self.machine.attempt("--tags", "build,release", **self.variables(**keys))
        assert result.returncode != 0, result.stdout
        assert self.machine.live("supplied") == before and self.machine.get("supplied.test") == (200, "hello")
        return " ".join(result.stdout.split())

    def hashed(self):
        """{name: line} of what an app with Flask and gunicorn takes on this host, with hashes."""
        python = "/opt/flask_apps/supplied/current/build/.venv/bin/python"
        pip = f"$(echo /opt/flask_apps/.tools/uv-*/bin/python) -m pip --python {python} install --quiet --dry-run"
        report = self.machine.output(f"{pip} --ignore-installed --only-binary :all: --report - flask gunicorn")
        found = {}
        for each in json.loads(report)["install"]:
            name, version = each["metadata"]["name"], each["metadata"]["version"]
            digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
            found[name.lower()] = f"{name}=={version} --hash=sha256:{digest}\n"
        return found


@pytest.fixture(scope="module")
def supplied(machine, tmp_path_factory):
    made = Supplied(machine, tmp_path_factory.mktemp("supplied"))
    yield made
    machine.deploy(flask_apps=[{**made.variables()["flask_apps"][0], "state": "absent"}])


def test_only_what_is_signed_is_deployed(supplied):
    signed = supplied.commit("flask\n", signed=True)
    assert supplied.deploy(allowed_signers=[supplied.signer]) == signed
    other = supplied.commit("flask\n")
    said = supplied.fail(allowed_signers=[supplied.signer])
    assert f"supplied: verify the signature: neither {other[:8]} nor a tag of it has a signature of one of" in said
    assert supplied.machine.output("ls /opt/flask_apps/supplied/builds").count(other[:8]) == 0
    supplied.git("-c", "gpg.format=ssh", "-c", f"user.signingKey={supplied.key}", "tag", "-s", "-m", "v1", "v1")
    supplied.git("push", "--quiet", str(SERVED / supplied.repository), "v1")
    assert supplied.deploy(version="v1", allowed_signers=[supplied.signer]) == other


def test_only_packages_with_the_hashes_of_the_repository_are_installed(supplied):
    hashed = supplied.hashed()
    whole = supplied.commit("".join(hashed.values()))
    assert supplied.deploy(require_hashes=True) == whole
    digest = hashed["flask"].rpartition(":")[2]
    supplied.commit("".join({**hashed, "flask": hashed["flask"].replace(digest, "0" * 64 + "\n")}.values()))
    assert "Hash mismatch for `flask" in supplied.fail(require_hashes=True)
    supplied.commit("".join({**hashed, "click": ""}.values()))
    assert "click" in supplied.fail(require_hashes=True)
    supplied.commit("".join({**hashed, "gunicorn": ""}.values()))
    said = supplied.fail(require_hashes=True)
    assert "require_hashes: gunicorn must be among the app's own dependencies, with its hashes" in said
    supplied.commit("".join(hashed.values()))
    supplied.deploy(require_hashes=True)
