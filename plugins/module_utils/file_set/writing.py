# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the host: write files, all or none, and remember which are ours. Every step can be put back, or be interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import time

from .comparing import look
from .wanted import FileSetError, NotPutBackError, chain_of

LOCK_TIMEOUT = 60  # seconds


class State:
    """What is remembered on the host for one owner: manifest, pending marker and lock in one directory."""

    def __init__(self, directory, owner):
        """:raises FileSetError: the owner is no name, or others could forge the manifest"""
        if not re.fullmatch("[a-z][a-z0-9_-]*", owner):
            raise FileSetError("owner must match [a-z][a-z0-9_-]*")
        if not os.path.isabs(directory):
            raise FileSetError("state_dir must be an absolute path")
        directory = os.path.normpath(directory)
        self.directory = directory
        self.owner = owner
        self.manifest_path = os.path.join(directory, f"{owner}.json")
        self.marker = os.path.join(directory, f"{owner}.pending")
        if os.path.lexists(directory):
            status = os.stat(directory)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise FileSetError(f"{directory}: must be a directory that only root can write")

    @contextlib.contextmanager
    def locked(self):
        """Hold the owner's lock.

        :raises FileSetError: another run holds it for LOCK_TIMEOUT seconds
        """
        os.makedirs(os.path.dirname(self.directory), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.directory, 0o700)
        path = os.path.join(self.directory, f"{self.owner}.lock")
        deadline = time.monotonic() + LOCK_TIMEOUT
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise FileSetError(f"another run has held {path} for {LOCK_TIMEOUT} s") from error
                    time.sleep(0.1)
            yield

    def load(self):
        """The manifest: path -> dict of subject, kind, digest.

        :raises FileSetError: it is damaged
        """
        try:
            with open(self.manifest_path, "rb") as stream:
                manifest = json.load(stream)
            if all(
                path.startswith("/")
                and isinstance(entry["subject"], str)
                and entry["kind"] in ("file", "link")
                and isinstance(entry["digest"], (str, type(None)))
                for path, entry in manifest.items()
            ):
                return manifest
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, AttributeError, TypeError):
            pass
        raise FileSetError(
            f"{self.manifest_path}: is damaged. Restore it, or remove it and take the files over with takeover: true"
        )

    def save(self, manifest):
        """Replace the manifest atomically."""
        self._replace(self.manifest_path, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")

    def begin(self, manifest, undo):
        """Set the marker, and note in the manifest what is about to be ours; ``undo`` (ExitStack) puts both back."""
        before = {path: look(path) for path in (self.marker, self.manifest_path)}

        def put_back(_type, error, _traceback):
            # After a file stayed behind, the larger manifest has to stay too, or the file would be forgotten.
            if any(isinstance(link, NotPutBackError) for link in chain_of(error)):
                return
            for path, found in before.items():
                if found.kind == "absent":
                    _remove(path)
                else:
                    self._replace(path, found.content)
            sync_directory(self.directory)

        undo.push(put_back)
        folders = sorted({os.path.dirname(path) for path in manifest})
        text = "".join(f"{line}\n" for line in ("Files were written; what uses them has yet to be told.", *folders))
        self._replace(self.marker, text.encode())
        self.save(manifest)

    def clear_marker(self):
        _remove(self.marker)
        sync_directory(self.directory)

    def _replace(self, path, content):
        temporary = self.temporary(path)
        with _naming(path):
            create(temporary, content, 0o600, os.geteuid(), os.getegid())
            os.rename(temporary, path)
        sync_directory(self.directory)

    def temporary(self, path):
        """A new name beside ``path`` that ``sweep`` knows; globs such as nginx's ``*`` skip it for its dot."""
        return os.path.join(os.path.dirname(path), f".flaskfleet-{self.owner}-{secrets.token_hex(8)}")

    def sweep(self, directories):
        """Remove what a killed run of this owner left under temporary names, there or where the marker says."""
        noted = look(self.marker).content.decode().splitlines()[1:]
        pattern = re.compile(rf"\.flaskfleet-{self.owner}-[0-9a-f]{{16}}")
        for directory in {self.directory, *directories, *noted}:
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if pattern.fullmatch(entry.name):
                        _remove(entry.path)


class Transaction:
    """Writes changes so that ``undo`` (ExitStack) can put everything back.

    A replaced file is kept under a temporary name beside it: putting it back is one rename, and it comes back
    with its content, mode, owner, times, labels and hard links.
    """

    def __init__(self, state, label, undo):
        self.state = state
        self.label = label
        self.undo = undo
        self.backups = []

    def write(self, changes):
        """Make all changes: first everything that can run out of space, then only renames.

        :raises FileSetError: it could not be done
        """
        directories = {os.path.dirname(change.wanted.dest) for change in changes}
        self.undo.callback(_sync_directories, directories)
        staged = [(change, self._stage(change)) for change in changes]
        for change, temporary in staged:
            with _naming(change.wanted.dest):
                self._move_in(change, temporary)
        _sync_directories(directories)

    def drop_backups(self):
        for backup in self.backups:
            _remove(backup)

    def _stage(self, change):
        """Create the wanted file or link under a temporary name; returns that, or None if the file shall go."""
        wanted = change.wanted
        if wanted.kind == "absent":
            return None
        temporary = self.state.temporary(wanted.dest)
        with _naming(wanted.dest):
            self._make_directory(os.path.dirname(wanted.dest))
            self.undo.callback(_remove, temporary)
            if wanted.kind == "link":
                os.symlink(wanted.content, temporary)
            else:
                create(temporary, wanted.content.encode(), wanted.mode, change.uid, change.gid)
            if self.label:
                self.label(temporary, wanted.dest)
        return temporary

    def _move_in(self, change, temporary):
        """Replace a path by its staged successor, or remove it where there is none, in one rename."""
        path = change.wanted.dest
        if change.before.kind == "absent":
            os.rename(temporary, path)
            self.undo.callback(_put_back, None, path)
            return
        backup = self.state.temporary(path)
        self.backups.append(backup)
        if temporary:
            os.link(path, backup, follow_symlinks=False)
            self.undo.callback(_put_back, backup, path)
            os.rename(temporary, path)
        else:
            os.rename(path, backup)
            self.undo.callback(_put_back, backup, path)

    def _make_directory(self, path):
        if os.path.isdir(path):
            return
        self._make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)
        self.undo.callback(_remove_directory, path)
        sync_directory(os.path.dirname(path))


@contextlib.contextmanager
def _naming(path):
    """Raise an OSError as a FileSetError that names the path the user knows."""
    try:
        yield
    except OSError as error:
        raise FileSetError(f"{path}: {error.strerror}") from error


def create(path, content, mode, uid, gid):
    """Create a file that must not exist yet; on disk when this returns, and not before readable to anybody else."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def sync_directory(path):
    """Make renames and removals in a directory survive a loss of power."""
    with _naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_directories(paths):
    for path in filter(os.path.isdir, paths):  # one that was made in vain is removed again
        sync_directory(path)


def _put_back(backup, path):
    """Make ``path`` what it was: the backup, or absent when that is None.

    :raises NotPutBackError:
    """
    try:
        if backup is None:
            _remove(path)
        else:
            os.rename(backup, path)
            _remove(backup)  # rename does nothing when both still are the same file
    except OSError as error:
        kept = f"; until the next run its earlier content lies in {backup}" if backup else ""
        raise NotPutBackError(f"{path}: could not be put back ({error.strerror}){kept}") from error


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _remove_directory(path):
    with contextlib.suppress(OSError):  # somebody else has put something there
        os.rmdir(path)
