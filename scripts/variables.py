#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/variables.md from the roles' argument specifications, into the file named or to the standard output."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
LISTS = {"flask_apps": "An app", "nginx_sites": "A site"}
HEAD = """# Variables of the roles

Made from the roles' `meta/argument_specs.yml` by `scripts/variables.py docs/variables.md`; `ansible-doc --type role`
shows the same.
"""


def main(arguments):
    roles = sorted(path.parents[1].name for path in PROJECT.glob("roles/*/meta/argument_specs.yml"))
    text = "\n".join([HEAD, *(section(role) for role in roles)])
    if arguments:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def section(role):
    spec = yaml.safe_load((PROJECT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = dict(spec["argument_specs"]["main"]["options"])
    lines = [f"## {role}", "", plain(spec["argument_specs"]["main"]["short_description"]) + ".", "", *table(options)]
    for name, heading in LISTS.items():
        keys = options.get(name, {}).get("options")
        if keys:
            lines += ["", f"### {heading} of `{name}`", "", *table(keys)]
    return "\n".join([*lines, ""])


def table(options):
    return ["| variable | type | default | meaning |", "|---|---|---|---|", *rows(options)]


def rows(options, prefix=""):
    for name, option in options.items():
        key = prefix + name
        kind = option.get("type", "str")
        if kind == "list":
            kind = f"list of {option['elements']}"
        default = f"`{shown(option['default'])}`" if "default" in option else ""
        if option.get("required"):
            default = "required"
        meaning = " ".join(plain(text) for text in sentences(option["description"]))
        if "choices" in option:
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        yield f"| `{key}` | {kind} | {default} | {meaning} |".replace("|  |", "| |")
        if name not in LISTS:
            brackets = "[]" if option.get("type") == "list" else ""
            yield from rows(option.get("options", {}), f"{key}{brackets}.")


def sentences(description):
    return [description] if isinstance(description, str) else description


def shown(value):
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|")


def plain(text):
    """Ansible's markup as Markdown."""
    text = re.sub(r"\b[OVC]\(((?:\\.|[^)\\])*)\)", lambda match: "`" + re.sub(r"\\(.)", r"\1", match[1]) + "`", text)
    text = re.sub(r"\b[MP]\(([^)#]*)(?:#\w+)?\)", r"`\1`", text)
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main(sys.argv[1:])
