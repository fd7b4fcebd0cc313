# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make builds on a host: one commit of an app plus its installed dependencies, immutable, named by what went in.

Two accounts take part, neither of them root: the fetch account owns the mirrors, checks the code out and unpacks wheels
(it never runs code of an app or a package); the app's own account installs what has to be built and runs the build
commands, in a sandbox that shows it this build and nothing else. What they leave is given to root, so that the app can
read and not change it.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pwd
import re
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils import build_tree, seal
from ansible_collections.flaskfleet.deploy.plugins.module_utils.dependencies import Dependencies
from ansible_collections.flaskfleet.deploy.plugins.module_utils.mirror import (
    CHECK_OUT,
    FETCH,
    Mirror,
    build_unit,
    hidden_folders,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    CACHE_ROOT,
    App,
    CommandFailed,
    read_json,
    remove_build,
    stamp_path,
    time_after,
    unused_name,
    write_file,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import build_hint
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import run, stop
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError, of_command

ACCOUNT_COMMENT = "Runs Flask apps"  # as in roles/flask_app/vars/main.yml; tells our accounts from others
ORPHAN_AGE = 3600  # seconds
SHARE = "share folders"  # the step
NO_FOLDER = 11
# Run as the app's account: the data are its own, and root must not follow what it may have put there. A folder appears
# whole or not at all.
FILL = f"""
umask 077
seeds=$1 shared=$2
shift 2
for path; do
    to=$shared/$path
    [ ! -d "$to" ] || continue
    [ ! -e "$to" ] || {{ echo "$to is no folder"; exit {NO_FOLDER}; }}
    mkdir -p "$(dirname "$to")"
    rm -rf "$to.new"
    cp -a --no-preserve=ownership "$seeds/$path" "$to.new"
    chmod -R u+rwX,go= "$to.new"
    mv -T "$to.new" "$to"
done
"""


class Builder:
    """Makes the builds of one host.

    :param settings: the plan's settings: root, data_root, runtime_root, rebuild, installer, index_url, ca_file
    :ivar damaged: {name of an app: seal.Condition} of builds that were wanted and are not as they were made
    :ivar mended: names of the apps whose build had other owners or modes than it was made with
    :ivar changed: whether an app's build or data lacked anything else
    """

    def __init__(self, settings):
        self.settings = settings
        self.damaged = {}
        self.mended = []
        self.changed = False
        self.root = settings["root"]
        self.hidden = hidden_folders(settings)
        self.dependencies = Dependencies(settings, self.hidden)

    # --- what is there ---

    def find(self, app, commit):
        """The newest whole build of a commit, a seal.Condition; None when there is none, or a new one is asked for.

        The commit may be None, when only the host can resolve it. Damaged builds are passed over, see ``damaged``.
        """
        if commit is None or self.settings["rebuild"]:
            return None
        stem = build_stem(app, commit)
        builds = [(stamp["created"], name) for name, stamp in self.stamps(app).items() if name.split(".")[0] == stem]
        for _created, name in sorted(builds, reverse=True):
            found = seal.Condition(os.path.join(app["paths"]["builds"], name), group_of(app))
            if found.damage is None:
                return found
            self.damaged[app["name"]] = found
        return None

    def stamps(self, app):
        """{name: stamp} of the complete builds of an app."""
        directory = app["paths"]["builds"]
        names = os.listdir(directory) if os.path.isdir(directory) else []
        builds = [name for name in names if f"{name}.json" in names]
        stamps = {name: read_json(stamp_path(os.path.join(directory, name))) for name in builds}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def keep(self, app, commit, found, check_mode=False):
        """Take a build that is there, and put right what it lacks. Returns what ``build`` does.

        :param found: what ``find`` returned
        :raises BuildError: as ``publish`` and ``share``
        """
        if found.astray:
            self.mended.append(app["name"])
            if not check_mode:
                found.mend()
        lacking = [self.publish(app, found.name, check_mode), self.share(app, found.name, check_mode)]
        self.changed = self.changed or any(lacking)
        subject = self.stamps(app)[found.name]["subject"]
        return {"commit": commit, "build": found.name, "subject": subject, "built": False}

    # --- the steps ---

    def mirror(self, app):
        """The app's Mirror."""
        return Mirror(app, build_unit(app), self.hidden)

    def build(self, app, url, commit, access=None):
        """Make one build, unless the commit turns out to be built. A failed one leaves nothing behind.

        :param access: as Mirror.fetch takes it
        :return: {commit, build, subject, built}
        :raises BuildError: with the step and its output
        """
        stop(build_unit(app))
        try:
            return self._build(app, url, commit, access)
        except BuildError as error:
            if error.step not in (FETCH, CHECK_OUT) or self.mirror(app).is_whole(contents=error.step == CHECK_OUT):
                raise
            self.mirror(app).remove()
            return self._build(app, url, commit, access)

    def _build(self, app, url, commit, access):
        owner = account(app)
        mirror = self.mirror(app)
        if commit is None:
            commit, _subject = mirror.fetch(url, None, access=access)
        found = self.find(app, commit)
        if found:
            return self.keep(app, commit, found)
        stamps = self.stamps(app)
        name = unused_name(build_stem(app, commit), stamps)
        directory = os.path.join(app["paths"]["builds"], name)
        remove_build(directory)
        try:
            _commit, subject = mirror.fetch(url, commit, directory, access)
            if app["allowed_signers"]:
                mirror.verify(url, commit, access)
            build_tree.refuse_pointers(directory)
            build_tree.check_path(app, commit, directory)
            build_tree.link_shared(app, directory)
            made = self.dependencies.shared(app, directory, build_unit(app))
            build_tree.give(directory, owner.pw_uid, owner.pw_gid)
            self.dependencies.install(app, directory, build_unit(app), made)
            if app["build_commands"]:
                build_tree.give(directory, owner.pw_uid, owner.pw_gid)
                self._run_commands(app, directory)
            build_tree.give(directory, 0, owner.pw_gid)
            build_tree.let_group_read(os.path.join(directory, build_tree.SEEDS))
            self.share(app, name)
            folders = build_tree.static_folders(app)
            build_tree.publish(directory, folders)
            created = time_after(stamp["created"] for stamp in stamps.values())
            stamp = {"app": app["name"], "commit": commit, "subject": subject, "created": created}
            stamp["published"] = folders
            os.sync()  # so that no stamp outlives its files in a power cut
            seal.close(directory)
            write_file(stamp_path(directory), json.dumps(stamp, indent=2) + "\n")
        except BaseException:
            remove_build(directory)
            raise
        return {"commit": commit, "build": name, "subject": subject, "built": True}

    def publish(self, app, name, check_mode=False):
        """Have nginx read what an existing build has of the app's static folders. Returns whether it could not yet.

        :raises BuildError: there is no such folder
        """
        directory = os.path.join(app["paths"]["builds"], name)
        folders = build_tree.static_folders(app)
        stamp = self.stamps(app)[name]
        # A folder that is no longer among them stays readable: an earlier release may need it.
        missing = [folder for folder in folders if folder not in stamp.get("published", ())]
        if missing and not check_mode:
            stamp["published"] = [*stamp.get("published", ()), *missing]
            build_tree.publish(directory, stamp["published"])
            seal.close(directory)
            write_file(stamp_path(directory), json.dumps(stamp, indent=2) + "\n")
        return bool(missing)

    def share(self, app, name, check_mode=False):
        """Make the shared folders that the app's data do not have, filled from a build. Returns whether any lacked.

        :raises BuildError: something else is in the place of one
        """
        missing = [
            path for path in app["shared_paths"] if not os.path.isdir(os.path.join(build_tree.shared_folder(app), path))
        ]
        if not missing or check_mode:
            return bool(missing)
        seeds = os.path.join(app["paths"]["builds"], name, build_tree.SEEDS)
        try:
            run(
                ["/bin/sh", "-euc", FILL, "sh", seeds, build_tree.shared_folder(app), *missing],
                unit=build_unit(app),
                user=app["user"],
                hidden=[*self.hidden, CACHE_ROOT],
                readable=[seeds],
                writable=[app["paths"]["data"]],
                network=False,
                merged=True,
            )
        except CommandFailed as error:
            if error.status == NO_FOLDER:
                raise BuildError(SHARE, f"shared_paths: {error.output[-1]}; move it away") from error
            raise of_command(SHARE, "shared_paths: the app's account could not make them", error) from error
        return True

    def _run_commands(self, app, directory):
        """The app's build commands. They see what is the same in every build of this name: no secret, no setting of one
        host or release, and no network.
        """
        environment = {
            "PATH": f"{directory}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
            "FLASK_APP": app["entrypoint"],
            "FLASK_DEBUG": "0",
        }
        writable = [directory]
        if app["shared_paths"]:
            writable.append(f"{os.path.join(directory, build_tree.SEEDS)}:{build_tree.shared_folder(app)}")
        for command in app["build_commands"]:
            try:
                run(
                    ["/bin/sh", "-c", command],
                    unit=build_unit(app),
                    user=app["user"],
                    hidden=[*self.hidden, CACHE_ROOT],
                    writable=writable,
                    environment=environment,
                    directory=os.path.join(directory, app["path"]),
                    limit=app["command_timeout"],
                    network=False,
                    merged=True,
                )
            except CommandFailed as error:
                message = f"`{command}` {error}{build_hint(error.output)}"
                raise BuildError("build command", message, error.output, command, error.status) from error

    # --- all of them ---

    def build_all(self, work, jobs=0):
        """Build several apps side by side.

        :param work: list of what ``build`` takes
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
            return dict(zip([item[0]["name"] for item in work], pool.map(one, work)))

    def halves(self, app):
        """Names of what is in the place of builds and is no whole one: of a build that runs, or was killed."""
        directory = app["paths"]["builds"]
        names = set(os.listdir(directory)) if os.path.isdir(directory) else set()
        builds = {re.sub(r"\.(json|seal)$", "", name) for name in names}
        return sorted(name for name in builds if not {name, f"{name}.json"} <= names)

    def remove_orphans(self, app, wanted):
        """Remove what killed runs left: halves of builds, and old builds that no release uses."""
        for name in self.halves(app):
            remove_build(os.path.join(app["paths"]["builds"], name))
        here = App(self.root, app["name"])
        used = {release["build"] for release in here.records().values()} | {wanted}
        for name, stamp in self.stamps(app).items():
            # A clock may have jumped back. A younger one may be another run's, about to be activated.
            if name not in used and abs(time.time() - stamp["created"]) > ORPHAN_AGE:
                remove_build(os.path.join(app["paths"]["builds"], name))


# --- helpers ---------------------------------------------------------------------------------------------------------


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


def group_of(app):
    """Number of the group that the app's builds belong to; None while its account is missing."""
    try:
        return pwd.getpwnam(app["user"]).pw_gid
    except KeyError:
        return None
