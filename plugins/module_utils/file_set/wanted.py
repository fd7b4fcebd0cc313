# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set of files is to be, as the controller sends it and the host receives it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..payload import decode, encode

STATE_DIRECTORY = "/var/lib/flaskfleet"  # unless a task says otherwise

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


def chain_of(error):
    """An exception and those in whose handling it was raised, but not those it stands for (``raise … from``)."""
    cause = None
    while error:
        if error is not cause:
            yield error
        cause, error = error.__cause__, error.__context__


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


def pack(wanted):
    """Rendered files (list of Wanted) as a payload; see ``unpack``."""
    return encode([asdict(item) for item in wanted])


def unpack(payload):
    """The list of Wanted that ``pack`` was given."""
    return [Wanted(**item) for item in decode(payload)]
