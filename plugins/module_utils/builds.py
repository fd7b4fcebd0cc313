# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make builds on a host: one commit of an app plus its installed dependencies, immutable, named by what went in.

Two accounts take part, neither of them root: the fetch account owns the mirrors and checks the code out (it never runs
code of an app); the app's own account installs dependencies, in a sandbox that shows it this build and nothing else.
What they leave is given to root, so that the app can read and not change it.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import json
import os
import pwd
import shutil
import stat
import subprocess
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    CACHE_ROOT,
    App,
    read_json,
    remove_build,
    stamp_path,
    unused_name,
    write_file,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import REMOTE, git_configuration
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import LIMIT, CommandFailed, run, stop

FETCH_USER = "flaskfleet-fetch"
ACCOUNT_COMMENT = "Runs Flask apps"  # as in the role's template app.sysusers.conf.j2; tells our accounts from others
PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "/root/.pip/pip.conf", "/root/.config/pip/pip.conf")
ORPHAN_AGE = 3600  # seconds; a younger build without a release may be another run's, about to be activated

UV_VERSION = "0.13.9"
# sha256 of the wheels for Linux with glibc: x86_64, aarch64
UV_HASHES = (
    "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
)

# git talks to nobody, runs nothing of the repository, and uses no transport that runs a command
GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "gc.auto=0")
GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",  # bytes a second, for
    "GIT_HTTP_LOW_SPEED_TIME": "60",  # seconds
    "LC_ALL": "C.UTF-8",
}
SHOWN_COMMITS = 30
ANSWER_LIMIT = 30  # seconds for a repository to answer at all; git's own protocol knows no time limit


class BuildError(Exception):
    """A build failed.

    :ivar step: what was being done
    :ivar output: list of the last lines of output, may be empty
    """

    def __init__(self, step, message, output=()):
        super().__init__(message)
        self.step = step
        self.output = list(output)


class Builder:
    """Makes the builds of one host.

    :param settings: the plan's settings: root, data_root, runtime_root, installer, index_url, ca_file
    """

    def __init__(self, settings):
        self.settings = settings
        self.root = settings["root"]
        self.hidden = [settings[name] for name in ("root", "data_root", "runtime_root")]
        self.uv = os.path.join(self.root, ".tools", f"uv-{UV_VERSION}", "bin", "uv")

    # --- what is there ---

    def find(self, app, commit):
        """Name of the newest complete build of a commit; None when there is none, or a new one is asked for.

        The commit may be None, when only the host can resolve it.
        """
        if commit is None or self.settings["rebuild"]:
            return None
        stem = build_stem(app, commit)
        builds = [(stamp["created"], name) for name, stamp in self.stamps(app).items() if name.split(".")[0] == stem]
        return max(builds)[1] if builds else None

    def stamps(self, app):
        """{name: stamp} of the complete builds of an app."""
        directory = app["paths"]["builds"]
        names = os.listdir(directory) if os.path.isdir(directory) else []
        builds = [name for name in names if f"{name}.json" in names]
        stamps = {name: read_json(stamp_path(os.path.join(directory, name))) for name in builds}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    # --- the steps ---

    def prepare(self):
        """What all builds of the host need, made once: the tool environment."""
        if self.settings["installer"] == "uv" and not os.path.exists(self.uv):
            self._install_uv()

    def _install_uv(self):
        """uv as a hash-pinned wheel in an environment of its own, which appears whole or not at all."""
        final = os.path.dirname(os.path.dirname(self.uv))
        temporary = f"{final}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(os.path.dirname(final), mode=0o755, exist_ok=True)
        try:
            subprocess.run(["/usr/bin/python3", "-m", "venv", temporary], check=True, capture_output=True, text=True)
            pinned = os.path.join(temporary, "uv.txt")
            hashes = " ".join(f"--hash=sha256:{each}" for each in UV_HASHES)
            write_file(pinned, f"uv=={UV_VERSION} {hashes}\n")
            command = [os.path.join(temporary, "bin", "pip"), "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            if self.settings["index_url"]:
                command += ["--index-url", self.settings["index_url"]]
            if self.settings["ca_file"]:
                command += ["--cert", self.settings["ca_file"]]
            subprocess.run([*command, "--require-hashes", "-r", pinned], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise BuildError("install uv", "uv could not be installed", error.stderr.splitlines()[-15:]) from error
        os.rename(temporary, final)

    def fetch(self, app, url, commit):
        """Bring the mirror up to date; returns the full commit. Nothing of the repository is run."""
        repo = app["paths"]["repo"]
        owner = pwd.getpwnam(FETCH_USER)
        if not os.path.isdir(repo):
            os.mkdir(repo, 0o700)
            os.chown(repo, owner.pw_uid, owner.pw_gid)
        # the password of the URL travels in a file, not on a command line
        remote = os.path.join(app["paths"]["root"], "repository.conf")
        lines = []
        for key, value in git_configuration(url).items():
            section, _dot, rest = key.partition(".")
            subsection, _dot, name = rest.rpartition(".")
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'[{section} "{subsection}"]\n\t{name} = "{quoted}"\n')
        write_file(remote, "".join(lines), mode=0o640)
        os.chown(remote, 0, owner.pw_gid)
        git = [*GIT, "-c", f"include.path={remote}", f"--git-dir={repo}"]
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        try:
            if not os.path.exists(os.path.join(repo, "HEAD")):
                self._as_fetcher(app, ["git", "init", "--quiet", "--bare", repo], repo)
            head = self._as_fetcher(app, [*git, "ls-remote", "--quiet", REMOTE, "HEAD"], repo, limit=ANSWER_LIMIT)
            self._as_fetcher(app, [*git, "fetch", "--quiet", "--prune", "--force", REMOTE, *refs], repo)
            if commit is None:
                commit = self._resolve(app, git, repo, head)
            elif not self._has(app, git, repo, commit):
                # a commit that no branch or tag reaches any more
                self._as_fetcher(app, [*git, "fetch", "--quiet", REMOTE, commit], repo)
        except CommandFailed as error:
            raise BuildError("fetch the code", f"git could not fetch {app['repository']}", error.output) from error
        return commit

    def _has(self, app, git, repo, commit):
        try:
            self._as_fetcher(app, [*git, "cat-file", "-e", f"{commit}^{{commit}}"], repo)
        except CommandFailed:
            return False
        return True

    def _resolve(self, app, git, repo, head):
        """The commit of a branch, tag or (short) commit as the host sees it; ``head`` is ls-remote's word on HEAD."""
        version = app["version"]
        if version == "HEAD":
            if not head:
                raise BuildError(
                    "fetch the code", "the repository has no default branch: name a version, if it has any"
                )
            return head.split()[0]
        for name in (f"refs/heads/{version}", f"refs/tags/{version}", version):
            try:
                return self._as_fetcher(
                    app, [*git, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], repo
                ).strip()
            except CommandFailed:
                continue
        raise BuildError("fetch the code", f"there is no branch, tag or commit {version!r} in the repository")

    def _as_fetcher(self, app, command, writable, limit=LIMIT, directory="/"):
        """Run git as the account that owns the mirrors; the index is the one file that a checkout needs beside them."""
        return run(
            command,
            unit=build_unit(app),
            user=FETCH_USER,
            hidden=self.hidden,
            readable=[app["paths"]["root"]],
            writable=[writable],
            environment={**GIT_ENVIRONMENT, "GIT_INDEX_FILE": "/tmp/index"},
            directory=directory,
            limit=limit,
        )

    def subject(self, app, commit):
        """First line of the commit's message."""
        git = [*GIT, f"--git-dir={app['paths']['repo']}"]
        return self._as_fetcher(app, [*git, "log", "-1", "--format=%s", commit], app["paths"]["repo"]).strip()

    def commits(self, app, old, new):
        """Lines of the commits that ``new`` has and ``old`` has not, newest first; None where the mirror lacks one."""
        repo = app["paths"]["repo"]
        if not new or not os.path.isdir(repo):
            return None
        git = [*GIT, f"--git-dir={repo}", "log", f"--max-count={SHOWN_COMMITS + 1}", "--format=%h %s", f"{old}..{new}"]
        try:
            lines = self._as_fetcher(app, git, repo).splitlines()
        except CommandFailed:
            return None
        return lines[:SHOWN_COMMITS] + ["… and more"] * (len(lines) > SHOWN_COMMITS)

    def build(self, app, url, commit):
        """Make one build, unless the commit turns out to be built. A failed one leaves nothing behind.

        :return: {commit, build, subject, built}
        :raises BuildError: with the step and its output
        """
        paths = app["paths"]
        owner = account(app)
        stop(build_unit(app))
        commit = self.fetch(app, url, commit)
        subject = self.subject(app, commit)
        name = self.find(app, commit)
        built = name is None
        if built:
            name = unused_name(build_stem(app, commit), self.stamps(app))
            directory = os.path.join(paths["builds"], name)
            remove_build(directory)
            try:
                self._checkout(app, commit, directory)
                give(directory, owner.pw_uid, owner.pw_gid)
                self._install(app, directory)
                give(directory, 0, owner.pw_gid)
                stamp = {"app": app["name"], "commit": commit, "subject": subject, "created": time.time()}
                os.sync()  # so that no stamp outlives its files in a power cut
                write_file(stamp_path(directory), json.dumps(stamp, indent=2) + "\n")
            except BaseException:
                remove_build(directory)
                raise
        return {"commit": commit, "build": name, "subject": subject, "built": built}

    def _checkout(self, app, commit, directory):
        os.mkdir(directory, 0o750)
        fetcher = pwd.getpwnam(FETCH_USER)
        os.chown(directory, fetcher.pw_uid, fetcher.pw_gid)
        repo = app["paths"]["repo"]
        git = [
            *GIT,
            f"--git-dir={repo}",
            f"--work-tree={directory}",
            "checkout",
            "--quiet",
            "--force",
            commit,
            "--",
            ".",
        ]
        try:
            self._as_fetcher(app, git, directory, directory=directory)
        except CommandFailed as error:
            raise BuildError("check the code out", f"git could not check out {commit[:8]}", error.output) from error
        source = os.path.join(directory, app["path"])
        top = os.path.realpath(directory)
        inside = os.path.commonpath([os.path.realpath(source), top]) == top
        if not os.path.isdir(source) or not inside:
            raise BuildError(
                "check the code out", f"path: the repository has no folder {app['path']!r} at {commit[:8]}"
            )

    def _install(self, app, directory):
        source = os.path.join(directory, app["path"])
        environment = os.path.join(directory, ".venv")
        cache = os.path.join(CACHE_ROOT, app["name"])
        python = app["python"]["executable"]
        if not os.access(python, os.X_OK):
            raise BuildError("install dependencies", f"python: there is no {python} on this host")
        script = install_script(
            self.settings["installer"],
            self.uv,
            python,
            environment,
            find_requirements(app, source, self.settings["installer"]),
            wanted_packages(app),
        )
        try:
            run(
                ["/bin/sh", "-euc", script],
                unit=build_unit(app),
                user=app["user"],
                hidden=[*self.hidden, CACHE_ROOT],
                readable=[os.path.join(self.root, ".tools")] if self.settings["installer"] == "uv" else [],
                writable=[directory, cache],
                environment=self._installer_environment(cache, environment),
                directory=source,
            )
        except CommandFailed as error:
            raise BuildError("install dependencies", f"{self.settings['installer']} failed", error.output) from error

    def _installer_environment(self, cache, environment):
        """uv reads no pip configuration: index and certificate authorities come from the role or the host's pip."""
        pip = pip_configuration()
        index = self.settings["index_url"] or pip.get("index-url", "")
        authorities = self.settings["ca_file"] or pip.get("cert", "")
        variables = {
            "UV_CACHE_DIR": cache,
            "UV_LINK_MODE": "copy",  # a hard link would let a later build change this one
            "UV_PROJECT_ENVIRONMENT": environment,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_COMPILE_BYTECODE": "1",
            "UV_NO_PROGRESS": "1",
            "UV_NO_CONFIG": "1",
            "PIP_CACHE_DIR": cache,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        if index:
            variables.update(UV_DEFAULT_INDEX=index, PIP_INDEX_URL=index)
        if pip.get("extra-index-url"):
            variables["UV_INDEX"] = pip["extra-index-url"].replace("\n", " ")
        if authorities:
            variables.update(SSL_CERT_FILE=authorities, PIP_CERT=authorities)
        return variables

    # --- all of them ---

    def build_all(self, work, jobs=0):
        """Build several apps side by side.

        :param work: list of (app, url, commit)
        :param jobs: how many at once; 0 is one a core
        :return: {app name: result of build, or BuildError}
        """

        def one(item):
            try:
                return self.build(*item)
            except BuildError as error:
                return error
            except KeyError as error:  # pwd: the account is missing
                return BuildError("prepare", str(error))
            except OSError as error:
                return BuildError("prepare", f"{error.strerror}: {error.filename}")
            except Exception as error:  # whatever it is, it must not keep the other apps from their builds
                return BuildError("prepare", f"{type(error).__name__}: {error}")

        with concurrent.futures.ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0))) as pool:
            return dict(zip([app["name"] for app, url, commit in work], pool.map(one, work)))

    def remove_orphans(self, app, wanted):
        """Remove what killed runs left: directories that are no complete build, and old builds that no release uses."""
        here = App(self.root, app["name"])
        used = {release["build"] for release in here.records().values()} | {wanted}
        with os.scandir(app["paths"]["builds"]) as entries:
            found = [entry.path for entry in entries if entry.is_dir() and entry.name not in used]
        for path in found:
            stamp = read_json(stamp_path(path))
            if stamp is None or stamp["created"] < time.time() - ORPHAN_AGE:
                remove_build(path)


# --- helpers ---------------------------------------------------------------------------------------------------------


def build_unit(app):
    """Beginning of the names of the units that an app's build runs in."""
    return f"flask-{app['name']}.build"


def build_stem(app, commit):
    return f"{commit[:8]}-{app['build_hash']}"


def account(app):
    """The account that the app builds and runs as (pwd.struct_passwd).

    :raises BuildError: it is missing, root's, or somebody else's that only has the name which the app's own would have
    """
    step = "check the account"
    try:
        found = pwd.getpwnam(app["user"])
    except KeyError as error:
        raise BuildError(step, f"user: there is no account {app['user']!r} on this host") from error
    if found.pw_uid == 0:
        raise BuildError(step, f"user: {app['user']!r} is root here")
    if app["own_user"] and found.pw_gecos != ACCOUNT_COMMENT:
        advice = f"state `user: {app['user']}` to use it all the same"
        raise BuildError(step, f"the account {app['user']!r} exists and was not made by this collection; {advice}")
    return found


def give(directory, uid, gid):
    """Hand a whole tree over, and let only the owner write to it. Links themselves, never what they point to."""
    for parent, directories, files in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in (*directories, *files))):
            os.lchown(path, uid, gid)
            status = os.lstat(path)
            if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
                os.chmod(path, stat.S_IMODE(status.st_mode) & ~0o022)


def find_requirements(app, source, installer):
    """The file that names the dependencies, relative to the app's folder; None when it has none.

    uv.lock first (it is exact; pip can't read it), then requirements.txt, then pyproject.toml: many repositories have
    a pyproject.toml for their tools' settings and pin what they deploy in requirements.txt.
    """
    if app["requirements"]:
        if not os.path.isfile(os.path.join(source, app["requirements"])):
            raise BuildError("install dependencies", f"requirements: there is no file {app['requirements']!r}")
        return app["requirements"]
    for name in (*(["uv.lock"] if installer == "uv" else []), "requirements.txt", "pyproject.toml"):
        if os.path.isfile(os.path.join(source, name)):
            return name
    return None


def wanted_packages(app):
    """What goes in beside the app's own dependencies. A bare server name fits whatever version the app pins."""
    return [*app["extra_packages"], app["server"]["kind"]]


def shell_quote(words):
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def install_script(installer, uv, python, environment, requirements, packages):
    """The shell commands that make an environment, with the lock of what was installed left in it."""
    lock = os.path.join(environment, "requirements.lock")
    into = ["--python", os.path.join(environment, "bin", "python")]
    if installer == "pip":
        pip = [os.path.join(environment, "bin", "python"), "-m", "pip", "--quiet"]
        sources = {None: [], "pyproject.toml": ["."]}.get(requirements, ["--requirement", requirements])
        return "\n".join(
            (
                shell_quote([python, "-m", "venv", environment]),
                shell_quote([*pip, "install", *sources, *packages]),
                f"{shell_quote([*pip, 'freeze'])} > {shell_quote([lock])}",
            )
        )
    lines = [shell_quote([uv, "venv", "--quiet", "--clear", "--python", python, environment])]
    if requirements == "uv.lock":
        lines.append(shell_quote([uv, "sync", "--quiet", "--locked", "--no-dev", "--python", python]))
        sources = []
    else:
        sources = ["--requirement", requirements] if requirements else []
    lines.append(shell_quote([uv, "pip", "install", "--quiet", *into, *sources, *packages]))
    lines.append(f"{shell_quote([uv, 'pip', 'freeze', '--quiet', *into])} > {shell_quote([lock])}")
    return "\n".join(lines)


def pip_configuration():
    """{option: value} of the host's own pip configuration files; later files win, as in pip."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = lambda name: name.lower().replace("_", "-")
    try:
        parser.read(PIP_FILES, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:  # its text may tell an index's password
        message = f"the pip configuration of this host cannot be read ({type(error).__name__})"
        raise BuildError("install dependencies", message) from None
    return {
        key: value for section in ("global", "install") if section in parser for key, value in parser[section].items()
    }
