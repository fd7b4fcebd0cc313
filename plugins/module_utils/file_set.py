# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a set of files true on a host, all or nothing, and remember which of them are ours.

``parse_files`` and ``pack`` run on the controller, ``unpack`` and ``run`` on the host.
No exception raised here carries the content of a file in its text.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import stat
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace

from .acme import issued
from .certificates import CertificateError, self_signed, usable
from .payload import decode, encode, scrub

STATE_DIRECTORY = "/var/lib/flaskfleet"  # unless a task says otherwise
LOCK_TIMEOUT = 60  # seconds
COMMAND_TIMEOUT = 300  # seconds
OUTPUT_LIMIT = 4000  # characters of a failed command's output, the last ones
DIFF_LIMIT = 100 * 1024  # bytes of a file that a diff shows

# Argument specifications of an element of the option files, and of all options.
FILE_OPTIONS = {
    "dest": {"type": "str", "required": True},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "link": {"type": "str"},
    "certificate": {"type": "dict"},
    "state": {"type": "str", "choices": ["absent"]},
    "mode": {"type": "str", "default": "0644"},
    "user": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "vars": {"type": "dict", "default": {}},
    "sensitive": {"type": "bool", "default": False},
    "subject": {"type": "str", "default": ""},
    "takeover": {"type": "bool", "default": False},
}
DIRECTORY_OPTIONS = {
    "path": {"type": "path", "required": True},
    "mode": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "default": ""},
    "subject": {"type": "str", "default": ""},
}
OPTIONS = {
    "owner": {"type": "str", "required": True},
    "files": {"type": "list", "elements": "dict", "options": FILE_OPTIONS, "required": True},
    "template_paths": {"type": "list", "elements": "str", "default": []},
    "items": {"type": "list", "elements": "dict", "default": []},
    "items_key": {"type": "str", "default": "name", "no_log": False},
    "items_var": {"type": "str", "default": "item"},
    "state_dir": {"type": "path", "default": STATE_DIRECTORY},
    "subjects": {"type": "list", "elements": "str", "default": []},
    "skipped_subjects": {"type": "list", "elements": "str", "default": []},
    "purge_undeclared": {"type": "bool", "default": False},
    "test_command": {"type": "list", "elements": "str", "default": []},
    "apply_commands": {"type": "list", "elements": "list"},
    "directories": {"type": "list", "elements": "dict", "options": DIRECTORY_OPTIONS, "default": []},
}

SOURCES = ("template", "content", "link", "certificate", "state")
CERTIFICATE_MODES = ("self_signed", "provided", "acme")
TYPES = {"str": (str, "a string"), "dict": (dict, "a dictionary"), "bool": (bool, "true or false")}


class FileSetError(Exception):
    """What the user has to mend: one or more problems, told all at once.

    :param details: belong into the result beside the message
    """

    def __init__(self, *problems, **details):
        text = problems[0] if len(problems) == 1 else "\n- ".join([f"{len(problems)} problems:", *problems])
        super().__init__(text)
        self.details = details


class NotPutBackError(FileSetError):
    """A file could not be put back after a failure."""


@dataclass(frozen=True)
class Wanted:
    """What a path shall be.

    ``kind`` is "file", "link" or "absent"; ``content`` is a file's text or a link's target. ``template`` (its name) and
    ``variables`` are set until the controller has rendered them into ``content``, ``certificate`` until the controller
    has put a provided one there, or the host one that it signs itself.
    """

    dest: str
    kind: str
    content: str = field(default="", repr=False)
    template: str = ""
    variables: dict = field(default_factory=dict, repr=False)
    certificate: dict = field(default_factory=dict)
    mode: int = 0o644
    user: str = "root"
    group: str = "root"
    sensitive: bool = False
    subject: str = ""
    takeover: bool = False


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


# --- On the controller ---------------------------------------------------------------------------------------


def parse_files(files, subjects):
    """Turn the option ``files`` (list of dict) into a list of Wanted.

    :raises FileSetError: all problems at once; it names paths and keys, never values
    """
    problems = []
    wanted = []
    for number, item in enumerate(files):
        dest = item.get("dest") if isinstance(item, dict) else None
        where = dest if isinstance(dest, str) and dest.isprintable() else f"files[{number}]"
        found = _file_problems(item, subjects)
        problems.extend(f"{where}: {problem}" for problem in found)
        if not found:
            wanted.append(_wanted(item))
    problems.extend(_collisions(wanted))
    if problems:
        raise FileSetError(*problems)
    return wanted


def _file_problems(given, subjects):
    """List what is wrong with one element of ``files``."""
    if not isinstance(given, dict):
        return ["must be a dictionary"]
    problems = [f"unknown key {key}" for key in given if key not in FILE_OPTIONS]
    for key, option in FILE_OPTIONS.items():
        python_type, name = TYPES[option["type"]]
        if key in given and not isinstance(given[key], python_type):
            problems.append(f"{key} must be {name}")
    if "dest" not in given:
        problems.append("dest is required")
    if sum(key in given for key in SOURCES) != 1:
        problems.append(f"exactly one of {', '.join(SOURCES)} is required")
    if problems:
        return problems

    item = _with_defaults(given)
    dest = item["dest"]
    if not dest.isprintable() or not re.match("/[^/]", dest) or os.path.normpath(dest) != dest:
        problems.append("dest must be an absolute, normalized path")
    problems.extend(
        f"{key} must be printable text, and not empty"
        for key in ("template", "link", "user", "group")
        if key in item and not (item[key] and item[key].isprintable())
    )
    if not re.fullmatch("[0-7]{3,4}", item["mode"]):
        problems.append('mode must be a quoted octal number such as "0644"')
    if "certificate" in item and item["certificate"].get("mode") not in CERTIFICATE_MODES:
        problems.append(f"certificate.mode must be one of {', '.join(CERTIFICATE_MODES)}")
    if item.get("state", "absent") != "absent":
        problems.append("state can only be absent")
    if not os.path.isabs(item.get("template", "")) and ".." in item.get("template", "").split("/"):
        problems.append('template must be an absolute path, or a name relative to the template paths, without ".."')
    if not encodable(item.get("content", "")):
        problems.append("content has characters that UTF-8 cannot encode")
    if item["subject"] not in ["", *subjects]:
        problems.append("subject is not one of subjects")
    return problems


def _with_defaults(given):
    """An element of ``files`` with the defaults of the keys that are not given."""
    return {**{key: option["default"] for key, option in FILE_OPTIONS.items() if "default" in option}, **given}


def encodable(text):
    """Whether UTF-8 can encode text (str); lone surrogates are what it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wanted(given):
    """Make a Wanted of a faultless element of ``files``. str() and dict() drop Ansible's tagged types."""
    item = _with_defaults(given)
    return Wanted(
        dest=str(item["dest"]),
        kind="link" if "link" in item else "absent" if "state" in item else "file",
        content=str(item.get("link", item.get("content", ""))),
        template=str(item.get("template", "")),
        variables=dict(item["vars"]),
        certificate=dict(item.get("certificate", {})),
        mode=int(item["mode"], 8),
        user=str(item["user"]),
        group=str(item["group"]),
        sensitive=item["sensitive"],
        subject=str(item["subject"]),
        takeover=item["takeover"],
    )


def _collisions(wanted):
    """List paths that are wanted twice or below another wanted path."""
    problems = []
    seen = set()
    for dest in [item.dest for item in wanted]:
        if dest in seen:
            problems.append(f"{dest}: listed twice")
        seen.add(dest)
    solid = {item.dest for item in wanted if item.kind != "absent"}
    for dest in sorted(solid):
        parent = os.path.dirname(dest)
        while parent != "/":
            if parent in solid:
                problems.append(f"{dest}: lies below {parent}, which is listed as a file or link")
            parent = os.path.dirname(parent)
    return problems


def pack(wanted):
    """Rendered files (list of Wanted) as a payload; see ``unpack``."""
    return encode([asdict(item) for item in wanted])


# --- On the host ---------------------------------------------------------------------------------------------


def unpack(payload):
    """The list of Wanted that ``pack`` was given."""
    return [Wanted(**item) for item in decode(payload)]


def run(options, wanted, check_mode, diff_mode, label=None):
    """Make ``wanted`` (list of Wanted) true, prune what is no longer listed, test, apply.

    :param options: dict with the keys of OPTIONS
    :param label: called with (temporary path, final path) of each file before it gets its name, to set a security label
    :returns: the result of the module (dict)
    :raises FileSetError: unless the message says otherwise, every file is then as it was before
    """
    with _errors_told():
        state = State(options["state_dir"], options["owner"])
        with contextlib.nullcontext() if check_mode else state.locked():
            was_pending = os.path.exists(state.marker)
            ids = find_ids(wanted, must_exist=not check_mode)
            mended = [each["path"] for each in options["directories"] if not is_as_said(each)]
            wanted = [_certified(item, check_mode) for item in wanted]
            plan = make_plan(wanted, state.load(), options, ids)
            if not check_mode:
                hidden = [item.content for item in wanted if item.sensitive]
                _carry_out(plan, state, options, was_pending or mended, hidden, label)
    changed = bool(plan.changes or mended) or was_pending
    result = {
        "changed": changed,
        "changed_files": sorted({change.wanted.dest for change in plan.changes}.difference(plan.pruned)),
        "pruned": plan.pruned,
        "mended": mended,
        "undeclared": plan.undeclared,
        "managed": sorted(plan.next_manifest),
        "differences": sorted(plan.differences, key=lambda each: each["path"]),
        "pending": changed and options["apply_commands"] is None,
        "pending_marker": state.marker,
    }
    if diff_mode:
        result["diff"] = [describe(change) for change in plan.changes]
    return result


def _certified(item, check_mode):
    """Fill in the certificate that is there, or a new one. In check mode nothing is made, and so a change predicted."""
    if not item.certificate:
        return item
    there = look(item.dest).content
    if item.certificate["mode"] == "acme":
        # Until one is issued, what the site had before stays, if anything.
        content = issued(item.certificate["lineage"]) or there.decode(errors="replace")
        return replace(item, content=content) if content or check_mode else replace(item, kind="absent")
    names = item.certificate["names"]
    content = usable(item.dest, there, names)
    if not content and not check_mode:
        try:
            content = self_signed(names)
        except CertificateError as error:
            raise FileSetError(f"{item.dest}: {error}") from error
    return replace(item, content=content)


@contextlib.contextmanager
def _errors_told():
    """Raise any OSError or FileSetError as one FileSetError that tells all that happened, first things first."""
    try:
        yield
    except (OSError, FileSetError) as error:
        problems, details = [], {}
        for link in _chain(error):
            if isinstance(link, FileSetError):
                problems.insert(0, str(link))
                details.update(link.details)
            elif isinstance(link, OSError):
                problems.insert(0, f"{link.filename}: {link.strerror}")
    else:
        return
    raise FileSetError(*problems, **details)


def _chain(error):
    """An exception and those in whose handling it was raised, but not those it stands for (``raise … from``)."""
    cause = None
    while error:
        if error is not cause:
            yield error
        cause, error = error.__cause__, error.__context__


def _carry_out(plan, state, options, must_apply, hidden, label):
    """Write, test and apply a plan.

    :param must_apply: whether to apply it even when no file changes
    :param hidden: contents of the sensitive files
    :raises OSError, FileSetError:
    """
    both = {**plan.manifest, **plan.next_manifest}
    state.sweep({os.path.dirname(path) for path in both})
    if plan.changes:
        with contextlib.ExitStack() as undo:
            state.begin(both, undo)
            transaction = Transaction(state, label, undo)
            transaction.write(plan.changes)
            execute(options["test_command"], "every file is as it was before", hidden)
            state.save(plan.next_manifest)
            undo.pop_all()
        transaction.drop_backups()
    else:
        if plan.next_manifest != plan.manifest:
            state.save(plan.next_manifest)
        if must_apply:  # an earlier run may have been killed before its test
            execute(options["test_command"], "the files were written by an earlier run", hidden)
    if (plan.changes or must_apply) and options["apply_commands"] is not None:
        for command in options["apply_commands"]:
            execute(command, "the files are written, the next run applies them again", hidden, changed=True)
        state.clear_marker()


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


def execute(command, consequence, hidden, **details):
    """Run a command (list of str, may be empty).

    :param consequence: what its failure means for the files
    :param hidden: texts that are masked in its output
    :raises FileSetError: it failed; with the end of its output, and details (cmd, rc and those given)
    """
    if not command:
        return
    environment = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin")
    # A file instead of a pipe: a daemon that the command leaves behind may keep its output open.
    with tempfile.TemporaryFile() as stream:
        try:
            code = subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule here, and a time limit
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                timeout=COMMAND_TIMEOUT,
                check=False,
            ).returncode
            outcome = f"failed with {code}"
        except OSError as error:
            code, outcome = 127, f"cannot be run ({error.strerror})"
        except subprocess.TimeoutExpired:
            code, outcome = 124, f"took longer than {COMMAND_TIMEOUT} s"
        stream.seek(0)
        output = mask(stream.read().decode(errors="replace"), hidden)[-OUTPUT_LIMIT:].strip()
    if code:
        text = f"{' '.join(command)}: {outcome}; {consequence}."
        raise FileSetError(f"{text}\n{output}" if output else text, cmd=command, rc=code, **details)


def mask(text, hidden):
    """Replace lines, assigned values and words of the texts ``hidden`` (6 characters and longer) in ``text``."""
    parts = set()
    for line in "".join(f"{content}\n" for content in hidden).splitlines():
        parts.update([line.strip(), line.partition("=")[2].strip("'\" "), *re.split(r'[\s\'"=;,:@]+', line)])
    return scrub(text, [part for part in parts if len(part) >= 6])


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
            if any(isinstance(link, NotPutBackError) for link in _chain(error)):
                return
            for path, found in before.items():
                if found.kind == "absent":
                    _remove(path)
                else:
                    self._replace(path, found.content)
            sync_directory(self.directory)

        undo.push(put_back)
        self._replace(self.marker, b"Files were written; what uses them has yet to be told.\n")
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
        """Remove what a killed run of this owner left under temporary names."""
        pattern = re.compile(rf"\.flaskfleet-{self.owner}-[0-9a-f]{{16}}")
        for directory in {self.directory, *directories}:
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
