# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the host: compare what is wanted with what is there. Nothing is changed here."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from dataclasses import dataclass, field

from .wanted import FileSetError, Wanted

DIFF_LIMIT = 100 * 1024  # bytes of a file that a diff shows


@dataclass(frozen=True)
class Found:
    """What a path is: ``kind`` is "file", "link", "absent", or "obstacle" with the reason why it cannot be replaced."""

    kind: str
    reason: str = ""
    content: bytes = field(default=b"", repr=False)
    mode: int = 0
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Change:
    """One path that has to change.

    ``uid`` and ``gid`` are those of the wanted file, None for a name that the host does not have yet. Of a ``hidden``
    change neither content is ever shown.
    """

    wanted: Wanted
    before: Found
    uid: int
    gid: int
    hidden: bool


@dataclass(frozen=True)
class Plan:
    """Changes to make, what is different about each (see ``difference``), and the manifest (path -> dict of subject,
    kind, digest) as it is and as it shall be.
    """

    changes: list
    differences: list
    pruned: list
    undeclared: list
    manifest: dict
    next_manifest: dict


def find_ids(wanted, must_exist):
    """Map (user, group) of all wanted files to (uid, gid); None for a name that the host does not have (yet).

    :raises FileSetError: names are missing and ``must_exist``
    """
    pairs = {(item.user, item.group) for item in wanted if item.kind == "file"}
    ids = {}
    missing = set()
    for user, group in sorted(pairs):
        uid = gid = None
        try:
            uid = pwd.getpwnam(user).pw_uid
        except KeyError:
            missing.add(f"user {user} does not exist")
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            missing.add(f"group {group} does not exist")
        ids[user, group] = uid, gid
    if missing and must_exist:
        raise FileSetError(*sorted(missing))
    return ids


def is_as_said(directory):
    """Whether a path of the option ``directories`` is a directory with that mode and these owners."""
    try:
        status = os.lstat(directory["path"])
        owners = [(pwd.getpwnam(directory["user"]).pw_uid, status.st_uid)]
        if directory["group"]:
            owners.append((grp.getgrnam(directory["group"]).gr_gid, status.st_gid))
    except (OSError, KeyError):  # there is no such path, or no such account
        return False
    same_mode = stat.S_IMODE(status.st_mode) == int(directory["mode"], 8)
    return stat.S_ISDIR(status.st_mode) and same_mode and all(wanted == found for wanted, found in owners)


def make_plan(wanted, manifest, options, ids):
    """Compare what is wanted with what is there; reads only.

    :param ids: see ``find_ids``
    :raises FileSetError: all paths that cannot or must not be written
    """
    problems = []
    changes = []
    pruned = []
    undeclared = set()
    next_manifest = {}

    for item in wanted:
        before = look(item.dest)
        entry = manifest.get(item.dest)
        uid, gid = ids.get((item.user, item.group), (None, None))
        same_content = (before.kind, before.content) == (item.kind, item.content.encode())
        same = same_content and (item.kind != "file" or (before.mode, before.uid, before.gid) == (item.mode, uid, gid))
        if before.kind == "obstacle":
            problems.append(f"{item.dest}: {before.reason}")
        elif before.kind != "absent" and not (same_content or entry or item.takeover):
            problems.append(f"{item.dest}: exists and is not managed by this collection (takeover: true replaces it)")
        elif not same:
            changes.append(Change(item, before, uid, gid, hidden=item.sensitive or _is_private(before, entry)))
        if item.kind != "absent":
            # No digest of a secret: it would let anyone test guesses.
            digest = None if item.sensitive else digest_of(item.content.encode())
            next_manifest[item.dest] = {"subject": item.subject, "kind": item.kind, "digest": digest}
            problems.extend(_parent_problems(item.dest))

    listed = {item.dest for item in wanted}
    for path, entry in sorted(manifest.items()):
        subject = entry["subject"]
        if path in listed:
            continue
        declared = subject in ["", *options["subjects"]]
        if subject in options["skipped_subjects"]:
            next_manifest[path] = entry
        elif not declared and not options["purge_undeclared"]:
            next_manifest[path] = entry
            undeclared.add(subject)
        else:
            before = look(path)
            if before.kind == "obstacle":
                problems.append(f"{path}: {before.reason}")
            elif before.kind != "absent":
                pruned.append(path)
                changes.append(Change(Wanted(path, "absent"), before, None, None, hidden=_is_private(before, entry)))

    if problems:
        raise FileSetError(*problems)
    differences = [difference(change, manifest.get(change.wanted.dest)) for change in changes]
    return Plan(changes, differences, pruned, sorted(undeclared), manifest, next_manifest)


def difference(change, entry):
    """What is different about a path, for people: dict of path, subject, what, since.

    :param entry: of the manifest, None when there is none: it tells what the last run left apart from what was changed
        since
    """
    path, before = change.wanted.dest, change.before
    found = {"path": path, "subject": change.wanted.subject or (entry or {}).get("subject", ""), "since": None}
    if change.wanted.kind == "absent":
        return {**found, "what": "is no longer in the list"}
    if before.kind == "absent":
        return {**found, "what": "is gone" if entry else "is not there yet"}
    if (before.kind, before.content) == (change.wanted.kind, change.wanted.content.encode()):
        return {**found, "what": "has another owner or mode", "since": os.lstat(path).st_ctime}
    if entry and entry["kind"] == before.kind and entry["digest"] == digest_of(before.content):
        return {**found, "what": "is as the last run left it, the list says something else"}
    what = "was changed on the host" if entry and entry["digest"] else "is different"
    return {**found, "what": what, "since": os.lstat(path).st_mtime}


def look(path):
    """What a path is now (Found), not following a symlink."""
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            # A pipe that took the file's place in between must not block the run.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                content = stream.read()
            mode = stat.S_IMODE(status.st_mode)
            return Found("file", content=content, mode=mode, uid=status.st_uid, gid=status.st_gid)
        if stat.S_ISLNK(status.st_mode):
            return Found("link", content=os.fsencode(os.readlink(path)))
        return Found("obstacle", "is a directory" if stat.S_ISDIR(status.st_mode) else "is neither a file nor a link")
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    except OSError as error:
        return Found("obstacle", error.strerror)


def _parent_problems(path):
    """A problem if the directory of path neither is one nor can be made."""
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    return [] if os.path.isdir(parent) else [f"{path}: {parent} is not a directory"]


def _is_private(before, entry):
    """Whether the present content may be a secret: it is a sensitive file's, or a private one's that is not from us."""
    if entry and entry["digest"] in (None, digest_of(before.content)):
        return entry["digest"] is None
    return before.kind == "file" and not before.mode & stat.S_IROTH


def digest_of(content):
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def describe(change):
    """A diff as Ansible prints it: dict of before, after, before_header, after_header."""
    path = change.wanted.dest
    if change.hidden:
        before, after = "", "changed\n"
    else:
        before = _shown(change.before.kind, change.before.content)
        after = _shown(change.wanted.kind, change.wanted.content.encode())
        if before == after:
            found, wanted = change.before, change.wanted
            before = _attributes(found.mode, _name(pwd.getpwuid, found.uid), _name(grp.getgrgid, found.gid))
            after = _attributes(wanted.mode, wanted.user, wanted.group)
    removed = " (removed)" if change.wanted.kind == "absent" else ""
    return {"before": before, "after": after, "before_header": path, "after_header": path + removed}


def _shown(kind, content):
    if kind == "absent":
        return ""
    if len(content) > DIFF_LIMIT:
        return "(too large to be shown)\n"
    text = content.decode(errors="replace")
    return f"link to {text}\n" if kind == "link" else text


def _attributes(mode, user, group):
    return f"mode: {mode:04o}\nuser: {user}\ngroup: {group}\n"


def _name(lookup, number):
    """The name of a user or group id, or the number where it has none."""
    try:
        return lookup(number)[0]
    except KeyError:
        return str(number)
