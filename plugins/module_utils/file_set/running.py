# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the host: what an execution of the module does, from what is wanted to what is told."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from ..certificates import CertificateError, self_signed, usable
from ..lineages import issued
from .commands import execute
from .comparing import describe, find_ids, is_as_said, look, make_plan
from .wanted import FileSetError, chain_of
from .writing import State, Transaction


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
        for link in chain_of(error):
            if isinstance(link, FileSetError):
                problems.insert(0, str(link))
                details.update(link.details)
            elif isinstance(link, OSError):
                problems.insert(0, f"{link.filename}: {link.strerror}")
    else:
        return
    raise FileSetError(*problems, **details)


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
