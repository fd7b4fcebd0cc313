# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the controller: read the option ``files`` of a task, and say all that is wrong with it."""

from __future__ import annotations

import os
import re

from .wanted import FILE_OPTIONS, FileSetError, Wanted

SOURCES = ("template", "content", "link", "certificate", "state")
CERTIFICATE_MODES = ("self_signed", "provided", "acme")
TYPES = {"str": (str, "a string"), "dict": (dict, "a dictionary"), "bool": (bool, "true or false")}


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
