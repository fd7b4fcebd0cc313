#!/usr/bin/python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does to keep itself true: fetch a repository with a playbook, judge the commit, run the playbook.

Installed as ``flaskfleet-pull`` by the role pull_agent, and run by its service; ``result`` is for the module app_info.
Nothing but the standard library, since it makes the environment that has Ansible.

The folder of the state:

- ``repository.git``: what was fetched
- ``commits/<commit>``: a checkout of the commit in force, and of one that is being judged
- ``current``: a link to the one in force; its rename is what puts a commit in force
- ``collections/<digest>``: what a requirements.yml of such a digest names
- ``result.json``: what became of the last run

A commit gets in force when it is the pinned one or carries the signature of an allowed signer, comes after the one in
force, its collections can be had, and the plans of its playbook for this host have no error. Else it is held back, and
the commit in force stays so: what somebody changed on the host is put right all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time

STATE_ROOT = "/var/lib/flaskfleet/pull"
CONFIGURATION = "/etc/flaskfleet/pull/agent.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = "refs/flaskfleet/wanted"
SHOWN_LINES = 20  # of what a command wrote, in the result
GIT_TIMEOUT = 300  # seconds for the repository's server
_RECAP = re.compile(r"^(?P<host>\S+)\s*: ok=\d+ +changed=(?P<changed>\d+) .*failed=(?P<failed>\d+)", re.MULTILINE)


class Held(Exception):
    """A commit does not get in force; the text says why."""


class Failed(Exception):
    """A command failed. :ivar output: the last lines that it wrote"""

    def __init__(self, message, output=""):
        super().__init__(message)
        self.output = telling_lines(output)


def telling_lines(output):
    """The lines of Ansible's output that say what was wrong, or the last ones of another command's."""
    text = output.partition("\nPLAY RECAP")[0].rstrip()
    wrong = [match.start() for match in re.finditer(r"^(?:fatal: |failed: |\[?ERROR)", text, re.MULTILINE)]
    if wrong:  # a block may have tasks that come whatever has failed
        text = text[: wrong[-1]] + text[wrong[-1] :].partition("\nTASK [")[0]
    starts = [match.start() for match in re.finditer(r"^(?:TASK \[|\[?ERROR)", text, re.MULTILINE)]
    lines = [line.rstrip() for line in text[starts[-1] if starts else 0 :].splitlines() if line.strip()]
    return lines[-SHOWN_LINES:]


def write_atomically(path, text, mode=0o600):
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)


class State:
    """What lies in the folder of the state."""

    def __init__(self, root=STATE_ROOT):
        self.root = root
        self.repository = os.path.join(root, "repository.git")
        self.commits = os.path.join(root, "commits")
        self.current = os.path.join(root, "current")
        self.collections = os.path.join(root, "collections")

    def result(self):
        """What result.json says; None before the first run."""
        try:
            with open(os.path.join(self.root, "result.json"), encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError):
            return None

    @contextlib.contextmanager
    def alone(self):
        """No other run of the agent meanwhile.

        :raises BlockingIOError: there is one
        """
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with open(os.path.join(self.root, "lock"), "a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def told(self):
        """As ``result``; a run that is said to be at it and is not, since the host went down, has failed."""
        result = self.result()
        if result and result["state"] == "running":
            with contextlib.suppress(BlockingIOError), self.alone():
                result.update(state="failed", reason="it did not come to its end")
        return result

    def write_result(self, result):
        write_atomically(os.path.join(self.root, "result.json"), json.dumps(result, indent=2) + "\n")

    def in_force(self):
        """The commit in force; None before there is one."""
        try:
            commit = os.path.basename(os.readlink(self.current))
        except OSError:
            return None
        return commit if os.path.isdir(os.path.join(self.commits, commit)) else None

    def put_in_force(self, commit):
        temporary = f"{self.current}.new"
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        os.symlink(os.path.join("commits", commit), temporary)
        os.rename(temporary, self.current)

    def prune(self, keep):
        """Remove checkouts that nothing needs any more, also what a killed run left."""
        for entry in os.scandir(self.commits):
            if entry.name not in keep:
                shutil.rmtree(entry.path)


class Environment:
    """Ansible in an environment of its own, named by what it is made of.

    :param configuration: as in Agent
    """

    def __init__(self, configuration):
        self.root = configuration["environments"]
        self.python = configuration["python"]
        self.requirements = configuration["requirements"]
        self.pip_options = configuration["pip_options"]

    @property
    def directory(self):
        with open(self.requirements, "rb") as stream:
            digest = hashlib.sha256(stream.read() + self.python.encode()).hexdigest()
        return os.path.join(self.root, f"ansible-{digest[:12]}")

    @property
    def complete(self):
        """The file that tells that the environment is whole."""
        return os.path.join(self.directory, "complete")

    def command(self, name, *arguments):
        # by its module: that works wherever the environment lies
        return [os.path.join(self.directory, "bin", "python"), "-m", "ansible", name, *arguments]

    def make(self):
        """Make it when it is not there, and remove others but the one before; returns whether it was made.

        :raises Failed:
        """
        if os.path.exists(self.complete):
            return False
        os.makedirs(self.root, mode=0o755, exist_ok=True)
        run([self.python, "-m", "venv", "--clear", self.directory], what="make the environment of Ansible")
        pip = [os.path.join(self.directory, "bin", "pip"), "--disable-pip-version-check", "install", "--quiet"]
        options = ["--require-hashes", "--only-binary=:all:", *self.pip_options, "--requirement", self.requirements]
        run([*pip, *options], what="install Ansible")
        write_atomically(self.complete, "", mode=0o644)
        # the newest other one may be what runs right now: an agent can be set up anew by what it pulls
        others = [entry for entry in os.scandir(self.root) if entry.path != self.directory]
        for entry in sorted(others, key=lambda each: each.stat().st_mtime)[:-1]:
            shutil.rmtree(entry.path)
        return True


def run(command, what, environment=None, cwd=None, timeout=None, echo=False):
    """Run a command without input; returns what it wrote.

    :param what: what it is for, as in "can't <what>"
    :param echo: whether its lines are shown as they come
    :raises Failed:
    """
    lines = []
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            text=True,
            errors="replace",
        ) as process:
            try:
                if echo:
                    for line in process.stdout:
                        print(line, end="", flush=True)
                        lines.append(line)
                else:
                    lines.append(process.communicate(timeout=timeout)[0])
            except BaseException:
                process.kill()
                raise
    except subprocess.TimeoutExpired as error:
        raise Failed(f"can't {what}: no end after {timeout} s") from error
    except OSError as error:
        raise Failed(f"can't {what}: {error}") from error
    output = "".join(lines)
    if process.returncode != 0:
        raise Failed(f"can't {what}: status {process.returncode}", output)
    return output


class Repository:
    """The fetched repository, and what is asked of it.

    :param configuration: as in Agent
    :param credentials: folder of the credentials that systemd hands over
    """

    def __init__(self, configuration, state, credentials=""):
        self.url = configuration["repository"]
        self.version = configuration["version"]
        self.allowed_signers = configuration["allowed_signers"]
        self.state = state
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        key = os.path.join(credentials, "repository_key")
        if credentials and os.path.exists(key):
            ssh += ["-i", key, "-o", "IdentitiesOnly=yes"]
        if configuration["known_hosts"]:
            ssh += ["-o", f"UserKnownHostsFile={configuration['known_hosts']}", "-o", "StrictHostKeyChecking=yes"]
        self.environment = {
            **os.environ,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": shlex.join(ssh),
            "LC_ALL": "C.UTF-8",
        }

    def git(self, *arguments, what, options=(), **environment):
        configured = [part for option in options for part in ("-c", option)]
        command = ["git", f"--git-dir={self.state.repository}", *configured, *arguments]
        return run(command, what, {**self.environment, **environment}, timeout=GIT_TIMEOUT).strip()

    def has(self, commit):
        try:
            self.git("cat-file", "-e", f"{commit}^{{commit}}", what="find the commit")
        except Failed:
            return False
        return True

    def fetch(self):
        """Fetch the wanted version; returns its commit.

        :raises Failed:
        """
        if not os.path.isdir(self.state.repository):
            run(["git", "init", "--quiet", "--bare", self.state.repository], "make a repository", self.environment)
        pinned = COMMIT.fullmatch(self.version)
        if pinned and self.has(self.version):
            return self.version
        # a server need not give a commit by its name
        wanted = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"] if pinned else [f"+{self.version}:{WANTED}"]
        options = ["fetch.fsckObjects=true", "protocol.ext.allow=never", "gc.auto=0"]
        fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", self.url, *wanted]
        self.git(*fetch, what="fetch the repository", options=options)
        if not pinned:
            return self.git("rev-parse", f"{WANTED}^{{commit}}", what="find the version")
        if not self.has(self.version):
            raise Failed("can't find the version: the repository has no such commit")
        return self.version

    def subject(self, commit):
        return self.git("show", "--no-patch", "--format=%s", commit, what="read the commit")

    def judge(self, commit, in_force):
        """See that a commit may get in force.

        :raises Held:
        """
        if commit == self.version:
            return
        options = [
            "gpg.format=ssh",
            f"gpg.ssh.allowedSignersFile={self.allowed_signers}",
            "gpg.minTrustLevel=fully",  # a good signature of a key that is not in the file has none
            "gpg.program=/bin/false",  # whom root's keyring trusts is of no account
            "gpg.x509.program=/bin/false",
        ]
        try:
            self.git("verify-commit", commit, what="verify its signature", options=options)
        except Failed as error:
            said = "; ".join(error.output) or "it has none"
            raise Held(f"not signed by an allowed signer ({said})") from error
        if in_force and self.has(in_force):
            try:
                self.git("merge-base", "--is-ancestor", in_force, commit, what="compare the commits")
            except Failed as error:
                message = f"does not come after {in_force[:8]}, which is in force; to go back, pin the version"
                raise Held(message) from error

    def check_out(self, commit):
        """Put a commit's files into a folder of their own, whole or not at all."""
        final = os.path.join(self.state.commits, commit)
        if os.path.isdir(final):
            return
        temporary = f"{final}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(temporary)
        index = f"{temporary}.index"
        command = [f"--work-tree={temporary}", "checkout", "--quiet", "--force", commit, "--", "."]
        try:
            self.git(*command, what="check the commit out", GIT_INDEX_FILE=index)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(index)
        os.rename(temporary, final)


class Agent:
    """One run.

    :param configuration: what the role has written: host, repository, version, allowed_signers, known_hosts,
        inventory, here (the inventory that says how this host is reached), playbook, requirements_file, galaxy_options,
        arguments, python, requirements, environments, pip_options
    :ivar result: what result.json will say
    """

    def __init__(self, configuration, state=None, credentials=""):
        self.configuration = configuration
        self.state = state or State()
        self.credentials = credentials
        self.repository = Repository(configuration, self.state, credentials)
        self.ansible = Environment(configuration)
        before = self.state.result() or {}
        self.result = {
            "host": configuration["host"],
            "state": "running",
            "started": time.time(),
            "seconds": None,
            "cpu_seconds": None,
            "commit": self.state.in_force(),
            "subject": before.get("subject", ""),
            "since": before.get("since"),
            "changed": None,
            "held": None,
            "reason": "",
            "output": [],
        }

    def run(self):
        """Do it; returns whether the commit that is wanted is in force and its playbook ran well."""
        started = time.monotonic()
        for folder in (self.state.root, self.state.commits, self.state.collections):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self.state.write_result(self.result)
        try:
            self.ansible.make()
            self.take_up()
            self.play()
            self.result["state"] = "ok"
        except Failed as error:
            self.result.update(state="failed", reason=str(error), output=error.output)
        except Exception as error:  # the result must say it, whatever it is
            self.result.update(state="failed", reason=f"unexpected {type(error).__name__}: {error}")
        self.result["seconds"] = round(time.monotonic() - started, 1)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self.result["cpu_seconds"] = round(sum(each.ru_utime + each.ru_stime for each in used), 1)
        self.state.write_result(self.result)
        print(result_line(self.result), *self.result["output"], sep="\n", flush=True)
        return self.result["state"] == "ok" and not self.result["held"]

    def take_up(self):
        """Put the wanted commit in force, or note why not.

        :raises Failed: no commit is in force
        """
        in_force, commit, subject = self.result["commit"], None, ""
        try:
            commit = self.repository.fetch()
            if commit == in_force:
                return
            subject = self.repository.subject(commit)
            self.repository.judge(commit, in_force)
            self.repository.check_out(commit)
            self.plan(commit)
        except (Held, Failed) as error:
            output = getattr(error, "output", [])
            self.result["held"] = {"commit": commit, "subject": subject, "reason": str(error), "output": output}
            if not in_force:
                raise Failed(f"no commit is in force: {error}", "\n".join(output)) from error
            print(held_line(self.result["held"]), *output, sep="\n", flush=True)
            return
        finally:
            self.state.prune({in_force, commit})
        self.state.put_in_force(commit)
        self.result.update(commit=commit, subject=subject, since=time.time())
        print(f"{commit[:8]} ({subject}) is in force", flush=True)

    def plan(self, commit):
        """Have the playbook of a commit plan for this host, and nothing more. Tasks that always run are the plans."""
        self.playbook(commit, ["--check", "--tags", "always"], "plan what it declares")

    def play(self):
        output = self.playbook(self.result["commit"], [], "make it true", echo=True)
        recaps = [match for match in _RECAP.finditer(output) if match["host"] == self.configuration["host"]]
        if not recaps:
            raise Failed(f"the playbook is for no group that has {self.configuration['host']}")
        self.result["changed"] = int(recaps[-1]["changed"])

    def playbook(self, commit, arguments, what, echo=False):
        checkout = os.path.join(self.state.commits, commit)
        environment = self.ansible_environment(checkout)
        configuration = self.configuration
        command = ["--inventory", os.path.join(checkout, configuration["inventory"])]
        # the second one goes before the first
        command += ["--inventory", configuration["here"], "--limit", configuration["host"]]
        password = os.path.join(self.credentials, "vault_password")
        if self.credentials and os.path.exists(password):
            command += ["--vault-password-file", password]
        command += [*configuration["arguments"], *arguments, configuration["playbook"]]
        return run(self.ansible.command("playbook", *command), what, environment, cwd=checkout, echo=echo)

    def ansible_environment(self, checkout):
        """The environment of Ansible's commands, with the collections of the checkout, which are installed for it."""
        home = os.path.join(self.state.root, "ansible")
        environment = {
            **os.environ,
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": home,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_PIPELINING": "1",  # modules come by a pipe, not by files: a third faster
            "PYTHONUNBUFFERED": "1",
        }
        paths = [os.path.join(checkout, "collections")]
        requirements = os.path.join(checkout, self.configuration["requirements_file"])
        if os.path.isfile(requirements):
            paths.insert(0, self.install_collections(checkout, requirements, environment))
        return {**environment, "ANSIBLE_COLLECTIONS_PATH": ":".join(paths)}

    def install_collections(self, checkout, requirements, environment):
        """The folder of the collections that a requirements.yml names; named by what it and its artefacts hold."""
        digest = hashlib.sha256()
        artefacts = []
        for directory, folders, files in os.walk(checkout):
            folders.sort()
            artefacts += [os.path.join(directory, file) for file in sorted(files) if file.endswith(".tar.gz")]
        for path in (requirements, *artefacts):
            with open(path, "rb") as stream:
                digest.update(stream.read())
        final = os.path.join(self.state.collections, digest.hexdigest()[:16])
        if not os.path.isdir(final):
            temporary = f"{final}.new"
            shutil.rmtree(temporary, ignore_errors=True)
            command = ["collection", "install", *self.configuration["galaxy_options"]]
            command += ["--requirements-file", requirements, "--collections-path", temporary]
            command = self.ansible.command("galaxy", *command)
            run(command, "install its collections", {**environment, "ANSIBLE_COLLECTIONS_PATH": temporary}, checkout)
            os.rename(temporary, final)
        os.utime(final)
        # those of the commit in force and of the one that is judged
        kept = sorted(os.scandir(self.state.collections), key=lambda entry: entry.stat().st_mtime)
        for entry in kept[:-2]:
            shutil.rmtree(entry.path)
        return final


def note_end(state, service_result):
    """Write down that a run was ended from outside.

    :param service_result: systemd's word for how, such as ``timeout``
    """
    result = state.result()
    if result and result["state"] == "running":
        reason = "it took longer than it may" if service_result == "timeout" else f"it was ended ({service_result})"
        seconds = round(time.time() - result["started"], 1)
        state.write_result({**result, "state": "failed", "seconds": seconds, "reason": reason})


def held_line(held):
    """One line on a commit that was held back."""
    if not held["commit"]:
        return f"nothing new was taken up: {held['reason']}"
    return f"{held['commit'][:8]} ({held['subject']}) was held back: {held['reason']}"


def result_line(result):
    """One line on what became of a run, for people."""
    commit = f"{result['commit'][:8]} ({result['subject']})" if result["commit"] else "no commit"
    if result["state"] == "ok":
        changed = f"{result['changed']} changes" if result["changed"] else "nothing changed"
        text = f"pulled {commit}, {changed}, {result['seconds']} s"
    elif result["state"] == "running":
        text = f"pulls {commit}"
    else:
        text = f"pull of {commit} FAILED: {result['reason']}"
    return f"{text}; {held_line(result['held'])}" if result["held"] and result["commit"] else text


def main(arguments):
    os.umask(0o022)
    state = State()
    if arguments == ["note-end"]:
        note_end(state, os.environ.get("SERVICE_RESULT", ""))
        return
    with open(CONFIGURATION, encoding="utf-8") as stream:
        configuration = json.load(stream)
    if arguments == ["environment"]:
        ansible = Environment(configuration)
        try:
            print("made" if ansible.make() else "unchanged", ansible.directory)
        except Failed as error:
            sys.exit("\n".join([str(error), *error.output]))
    elif arguments == ["run"]:
        try:
            with state.alone():
                well = Agent(configuration, state, os.environ.get("CREDENTIALS_DIRECTORY", "")).run()
        except BlockingIOError:
            sys.exit("another run of the agent is at it")
        sys.exit(0 if well else 1)
    else:
        sys.exit("usage: flaskfleet-pull run | environment   (systemctl start flaskfleet-pull.service runs it)")


if __name__ == "__main__":
    main(sys.argv[1:])
