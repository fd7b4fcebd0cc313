# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of a build: its interpreter and what it depends on.

What many builds have in common is made once, as a *set*: an environment with the packages of one requirements file,
which builds copy. Sets come from wheels alone, by an account that never runs anything of a package, so that no app can
put into one what ends up in another. What takes more than wheels is installed in the build itself, as the app's
account, with a cache of its own.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import threading
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils.mirror import FETCH_USER
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    CACHE_ROOT,
    CommandFailed,
    write_file,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import run
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError, of_command

STEP = "install dependencies"
PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "/root/.pip/pip.conf", "/root/.config/pip/pip.conf")
SET_AGE = 30 * 86400  # seconds after its last use that a set stays

UV_VERSION = "0.13.9"
# sha256 of the wheels for Linux with glibc: x86_64, aarch64
UV_HASHES = (
    "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
)
WHEELS_ALONE = ["--only-binary", ":all:"]
HASHED = ["--require-hashes", *WHEELS_ALONE]
PROJECT = "."  # in the place of a requirements file: the app's folder is a package itself
LONGEST = 1_000_000  # bytes of a requirements file that is looked into
# In a requirements file, but for hashes: options, which may name other files, and packages from elsewhere than an index
_BEYOND_INDEXES = re.compile(r"^\s*(?:-(?!-hash=)|[./]|\w+(?:\+\w+)?:)|--(?!hash=)|@|file:", re.MULTILINE)
# In a pyproject.toml: what only a build can tell, and likewise
_BEYOND_TEXT = re.compile(r"\bdynamic\b|\s@\s|file:")
_BUILD_SYSTEM = re.compile(r"^\s*\[build-system\]", re.MULTILINE)


class Dependencies:
    """What installs them on one host.

    :param settings: the plan's settings: root, installer, index_url, ca_file
    :param hidden: directories that an installation is not to see
    """

    def __init__(self, settings, hidden):
        self.settings = settings
        self.hidden = [*hidden, CACHE_ROOT]
        self.tools = os.path.join(settings["root"], ".tools")
        self.uv = os.path.join(self.tools, f"uv-{UV_VERSION}", "bin", "uv")
        self.sets = os.path.join(CACHE_ROOT, ".sets")
        self.cache = os.path.join(CACHE_ROOT, ".wheels")
        self._made = {}
        self._lock = threading.Lock()

    def prepare(self):
        """What all builds of the host need, made once: the tool environment, and room for sets."""
        if self.settings["installer"] != "uv":
            return
        if not os.path.exists(self.uv):
            self._install_uv()
        fetcher = pwd.getpwnam(FETCH_USER)
        for path, uid in ((self.sets, 0), (self.cache, fetcher.pw_uid)):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chown(path, uid, fetcher.pw_gid)
        for entry in os.scandir(self.sets):
            # of a run that was killed, or not used for long; only one run at a time builds
            if entry.name.startswith("new-") or abs(time.time() - entry.stat().st_mtime) > SET_AGE:
                shutil.rmtree(entry.path)

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
            message, lines = "uv could not be installed", error.stderr.splitlines()[-15:]
            raise BuildError("install uv", message, lines) from error
        os.sync()  # or a power cut could leave its name to empty files
        os.rename(temporary, final)

    def shared(self, app, directory, unit):
        """The folder of the set that an app can have its environment from; None when it takes more.

        Sets for equal requirements are made once a run. The build still belongs to the account that fetches.

        :param directory: of the build
        :param unit: beginning of the names of the units in which it happens
        :raises BuildError: the interpreter or the requirements are missing
        """
        python = app["python"]["executable"]
        if not os.access(python, os.X_OK):
            raise BuildError(STEP, f"python: there is no {python} on this host")
        source = os.path.join(directory, app["path"])
        requirements = find_requirements(app, source, self.settings["installer"])
        check_hashes(app, requirements)
        text = plain_text(source, requirements, wanted_packages(app))
        if self.settings["installer"] != "uv" or text is None:
            return None
        index = (app["index_url"], app["ca_file"])
        key = (requirements and os.path.basename(requirements), text, python, app["require_hashes"], index)
        with self._lock:
            mine = key not in self._made
            future = self._made.setdefault(key, concurrent.futures.Future())
        if mine:
            try:
                future.set_result(self._make_set(app, directory, requirements, text, unit))
            except (CommandFailed, OSError):
                future.set_result(None)  # what is wrong, the installation in the build says
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def install(self, app, directory, unit, made):
        """Make the environment ``.venv`` of a build, with the lock of what is in it.

        :param directory: of the build, which belongs to the app's account
        :param made: what ``shared`` returned
        :raises BuildError: with the installer's own words
        """
        if made:
            os.utime(made)
            subprocess.run(["cp", "-a", "--reflink=auto", os.path.join(made, ".venv"), directory], check=True)
        else:
            self._install_here(app, directory, unit)
        server = app["server"]["kind"]
        if app["require_hashes"] and not os.path.lexists(os.path.join(directory, ".venv", "bin", server)):
            message = f"require_hashes: {server} must be among the app's own dependencies, with its hashes"
            raise BuildError(STEP, message)

    def _make_set(self, app, directory, requirements, text, unit):
        """Install into a new set; returns its folder, or that of an older one with the very same in it.

        :param text: what it depends on. Hashes in it make a set for those who require the same ones: one made without
            them may have the same versions of something else.
        """
        fetcher = pwd.getpwnam(FETCH_USER)
        temporary = os.path.join(self.sets, f"new-{app['name']}")
        shutil.rmtree(temporary, ignore_errors=True)
        os.mkdir(temporary, 0o700)
        os.chown(temporary, fetcher.pw_uid, fetcher.pw_gid)
        environment = os.path.join(temporary, ".venv")
        python = app["python"]["executable"]
        packages, hashes = wanted_packages(app), app["require_hashes"]
        script = uv_script(self.uv, python, environment, requirements, packages, wheels_alone=True, hashes=hashes)
        variables = self._environment(app, self.cache, environment)
        try:
            run(
                ["/bin/sh", "-euc", script],
                unit=unit,
                user=FETCH_USER,
                hidden=self.hidden,
                readable=[self.tools, directory],
                writable=[temporary, self.cache],
                environment={**variables, "UV_COMPILE_BYTECODE": "0"},
                directory=os.path.join(directory, app["path"]),
            )
            with open(lock_path(environment), encoding="utf-8") as stream:
                content = [stream.read(), python, os.path.realpath(python), variables.get("UV_DEFAULT_INDEX", "")]
            content += [text] if hashes else []
            final = os.path.join(self.sets, hashlib.sha256("\n".join(content).encode()).hexdigest()[:16])
            if not os.path.isdir(final):
                self._compile(python, environment, unit)
                subprocess.run(["chown", "--recursive", "--no-dereference", "root:root", temporary], check=True)
                os.sync()  # as above
                os.rename(temporary, final)
            return final
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _compile(self, python, environment, unit):
        """Byte code for everybody. -I and -S: nothing that is installed there is run, no .pth file either."""
        # some files of other Pythons can't be compiled
        script = f"{shell_quote([python, '-I', '-S', '-m', 'compileall', '-q', '-j', '0', environment])} || :"
        writable = [os.path.dirname(environment)]
        run(["/bin/sh", "-c", script], unit=unit, user=FETCH_USER, hidden=self.hidden, writable=writable, network=False)

    def _install_here(self, app, directory, unit):
        """Install into the build itself, as the app's account: what has to be built may run anything."""
        source = os.path.join(directory, app["path"])
        environment = os.path.join(directory, ".venv")
        cache = os.path.join(CACHE_ROOT, app["name"])
        installer = self.settings["installer"]
        requirements = find_requirements(app, source, installer)
        packages = wanted_packages(app)
        python = app["python"]["executable"]
        if requirements == "pyproject.toml" and is_package(source):
            requirements = PROJECT
        variables = self._environment(app, cache, environment)
        if installer == "pip":
            script = pip_script(python, environment, requirements, packages, app["require_hashes"])
        else:
            kinds = {"hashes": app["require_hashes"], "other_index": "UV_DEFAULT_INDEX" in variables}
            script = uv_script(self.uv, python, environment, requirements, packages, **kinds)
        try:
            run(
                ["/bin/sh", "-euc", script],
                unit=unit,
                user=app["user"],
                hidden=self.hidden,
                readable=[self.tools] if installer == "uv" else [],
                writable=[directory, cache],
                environment=variables,
                directory=source,
            )
        except CommandFailed as error:
            raise of_command(STEP, f"{installer} failed", error) from error

    def _environment(self, app, cache, environment):
        """uv reads no pip configuration: index and certificate authorities come from the app, the role or the host's
        pip. An index that the app names is the only one it has.
        """
        pip = pip_configuration()
        index = app["index_url"] or self.settings["index_url"] or pip.get("index-url", "")
        authorities = app["ca_file"] or self.settings["ca_file"] or pip.get("cert", "")
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
        if pip.get("extra-index-url") and not app["index_url"]:
            variables["UV_INDEX"] = pip["extra-index-url"].replace("\n", " ")
        if authorities:
            variables.update(SSL_CERT_FILE=authorities, PIP_CERT=authorities)
        return variables


def find_requirements(app, source, installer):
    """The file that names the dependencies, relative to the app's folder; None when it has none.

    uv.lock first (it is exact; pip can't read it), then requirements.txt, then pyproject.toml: many repositories have
    a pyproject.toml for their tools' settings and pin what they deploy in requirements.txt.
    """
    if app["requirements"]:
        if not os.path.isfile(os.path.join(source, app["requirements"])):
            raise BuildError(STEP, f"requirements: there is no file {app['requirements']!r}")
        return app["requirements"]
    for name in (*(["uv.lock"] if installer == "uv" else []), "requirements.txt", "pyproject.toml"):
        if os.path.isfile(os.path.join(source, name)):
            return name
    return None


def is_package(source):
    """Whether an app's folder is a package by its pyproject.toml, as uv sees it: with a build system. It is installed
    then, and so its console scripts are; from where it lies, so that nothing of the folder is missing.
    """
    with open(os.path.join(source, "pyproject.toml"), encoding="utf-8", errors="replace") as stream:
        return _BUILD_SYSTEM.search(stream.read(LONGEST)) is not None


def wanted_packages(app):
    """What goes in beside the app's own dependencies. A bare server name fits whatever version the app pins."""
    if app["require_hashes"]:
        return []
    return [*app["extra_packages"], app["server"]["kind"]]


def check_hashes(app, requirements):
    """
    :raises BuildError: hashes are required, and the file that names the dependencies can have none
    """
    if app["require_hashes"] and (requirements is None or requirements.endswith(".toml")):
        found = f"{requirements!r} has none" if requirements else "there is neither"
        raise BuildError(STEP, f"require_hashes: hashes come from uv.lock or a requirements file, and {found}")


def plain_text(source, requirements, packages):
    """What a set depends on, as text; None when that is more than packages of the index and what this text says.

    :param requirements: the file that names them, relative to ``source``; None when there is none
    :param packages: what goes in beside
    """
    beside = "".join(f"{package}\n" for package in packages)
    if requirements == "uv.lock" or _BEYOND_INDEXES.search(beside):
        return None
    if requirements is None:
        return beside
    path = os.path.realpath(os.path.join(source, requirements))
    if not path.startswith(f"{os.path.realpath(source)}/") or os.path.getsize(path) > LONGEST:
        return None
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    if requirements.endswith(".toml"):
        beyond = _BEYOND_TEXT.search(text) or _BUILD_SYSTEM.search(text)
    else:
        beyond = _BEYOND_INDEXES.search(re.sub(r"(^|\s)#.*", "", text))
    return None if beyond else text + beside


def shell_quote(words):
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def lock_path(environment):
    """The file of an environment that lists what was installed into it."""
    return os.path.join(environment, "requirements.lock")


def pip_script(python, environment, requirements, packages, hashes=False):
    """The shell commands that make an environment with pip, with the lock of what was installed left in it."""
    pip = [os.path.join(environment, "bin", "python"), "-m", "pip", "--quiet"]
    sources = {None: [], "pyproject.toml": ["."], PROJECT: ["--editable", "."]}
    sources = sources.get(requirements, ["--requirement", requirements])
    return "\n".join(
        (
            shell_quote([python, "-m", "venv", environment]),
            shell_quote([*pip, "install", *(HASHED if hashes else []), *sources, *packages]),
            f"{shell_quote([*pip, 'freeze'])} > {shell_quote([lock_path(environment)])}",
        )
    )


def uv_script(uv, python, environment, requirements, packages, wheels_alone=False, hashes=False, other_index=False):
    """The same with uv.

    :param wheels_alone: nothing is built, and the environment may be copied to another place
    :param other_index: the packages of a lock come from another index than it names. For uv such a lock is outdated
        (https://github.com/astral-sh/uv/issues/11596), so its content is taken as a requirements file, whose hashes
        are checked all the same.
    """
    into = ["--python", os.path.join(environment, "bin", "python")]
    copied = ["--relocatable"] if wheels_alone else []
    options = HASHED if hashes else WHEELS_ALONE if wheels_alone else []
    lines = [shell_quote([uv, "venv", "--quiet", "--clear", *copied, "--python", python, environment])]
    sources = ["--requirement", requirements] if requirements else []
    if requirements == PROJECT:
        sources = ["--editable", "."]
    elif requirements == "uv.lock" and other_index:
        exported = os.path.join(environment, "uv.txt")
        shown = ["--quiet", "--no-dev", "--no-header", "--no-annotate"]
        lines.append(shell_quote([uv, "export", *shown, "--frozen", "--python", python, "--output-file", exported]))
        sources, options = ["--requirement", exported], []
    elif requirements == "uv.lock":
        lines.append(shell_quote([uv, "sync", "--quiet", "--locked", "--no-dev", "--python", python]))
        sources = []
    if sources or packages:
        lines.append(shell_quote([uv, "pip", "install", "--quiet", *into, *options, *sources, *packages]))
    lines.append(f"{shell_quote([uv, 'pip', 'freeze', '--quiet', *into])} > {shell_quote([lock_path(environment)])}")
    return "\n".join(lines)


def pip_configuration():
    """{option: value} of the host's own pip configuration files; later files win, as in pip."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = lambda name: name.lower().replace("_", "-")
    try:
        parser.read(PIP_FILES, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:  # its text may tell an index's password
        message = f"the pip configuration of this host cannot be read ({type(error).__name__})"
        raise BuildError(STEP, message) from None
    return {
        key: value for section in ("global", "install") if section in parser for key, value in parser[section].items()
    }
