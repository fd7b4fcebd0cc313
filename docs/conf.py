# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the site of `make docs`. scripts/docs has it build a copy of docs/ with the reference in it."""

from __future__ import annotations

import posixpath
import re

from docutils import nodes

REPOSITORY = "https://github.com/flaskfleet/deploy/blob/main/"
RAW = "https://github.com/flaskfleet/deploy/raw/main/"  # as a file, not as a page about it
# pages that lie at the repository's root, where GitHub looks for them, and are pages of the site, too
PAGES_OF_ROOT = {"SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md"}
# what the reference calls by labels of Ansible's own documentation, or of a kind of page that it has none of
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
ELSEWHERE = [
    ("common_return_values", ANSIBLE + "reference_appendices/common_return_values.html"),
    ("action_plugins", ANSIBLE + "plugins/action.html"),
    ("ansible_configuration_settings", ANSIBLE + "reference_appendices/config.html"),
    (r"ansible_collections\.ansible\.builtin\.(\w+_module)", ANSIBLE + r"collections/ansible/builtin/\1.html"),
    (r"ansible_collections\.flaskfleet\.deploy\.(\w+)_playbook", REPOSITORY + r"playbooks/\1.yml"),
]

project = "flaskfleet.deploy"
project_copyright = "flaskfleet.deploy contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "furo"
html_title = project
html_show_sphinx = False
smartquotes = False
highlight_language = "text"
myst_heading_anchors = 3


def links_of_site(page, text):
    """The text of a page with links that lead where they should on the site. It is written for the repository.

    :param page: the page's name on the site, such as ``jobs/deploy``
    """
    folder = posixpath.dirname(page)
    for name, name_on_site in PAGES_OF_ROOT.items():
        if name_on_site == f"{page}.md":
            in_repository = name
            break
    else:
        in_repository = f"docs/{page}.md"

    def replaced(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), match["path"]))
        if target in PAGES_OF_ROOT:
            target = f"docs/{PAGES_OF_ROOT[target]}"
        if target.startswith("docs/") and target.endswith((".md", ".png")):
            place = posixpath.relpath(target, posixpath.join("docs", folder))
        else:
            place = (RAW if target.endswith(".png") else REPOSITORY) + target
        return f"]({place}{match['fragment'] or ''})"

    return re.sub(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?P<fragment>#[^)]*)?\)", replaced, text)


def _read(_app, page, source):
    if not page.startswith("reference/"):
        source[0] = links_of_site(page, source[0])


def _find(_app, _environment, node, content):
    for pattern, url in ELSEWHERE:
        found = re.fullmatch(pattern, node.get("reftarget", ""))
        if found:
            return nodes.reference("", "", content, internal=False, refuri=found.expand(url))
    return None


def setup(app):
    app.connect("source-read", _read)
    app.connect("missing-reference", _find)
