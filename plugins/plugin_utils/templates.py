# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render many templates in one action, on the controller."""

from __future__ import annotations

import os
import re
from collections import ChainMap

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.template import trust_as_template
from jinja2 import TemplateSyntaxError

from ..module_utils.plan.schema import ROLES


class TemplateError(Exception):
    """A template is missing or can't be rendered; the text says where and why, and for a sensitive file no value."""


class Renderer:
    """Renders templates as ``ansible.builtin.template`` does, many with one environment.

    :param action: the action plugin that renders
    :param template_paths: folders that are searched first, so that a user's template wins over the role's
    :param folders: the templates folders behind them; those of the calling role when not given
    """

    def __init__(self, action, task_vars, template_paths=(), folders=None):
        if folders is None:
            folders = [os.path.join(path, "templates") for path in task_vars["ansible_search_path"]]
        self._task_vars = task_vars
        self._loader = action._loader
        people = [self._loader.path_dwim(path) for path in template_paths]
        self._search_path = people + list(folders)
        self._of_roles = {each for each in folders if _lies_in(each, ROLES)} - set(people)
        self._templar = action._templar.copy_with_new_env(searchpath=self._search_path, available_variables=task_vars)
        self._sources = {}

    def render(self, name, variables, sensitive=False):
        """The text of the template ``name`` with ``variables`` (dict) over the task's own.

        :raises TemplateError: there is no such template, or it fails
        """
        if name not in self._sources:
            self._sources[name] = self._source(name)
        source, template = self._sources[name]
        self._templar.available_variables = ChainMap(variables, self._task_vars, {"ansible_managed": "Ansible managed"})
        try:
            content = self._templar.template(template, escape_backslashes=False)
        except Exception as error:
            # outside the handler, so that no traceback shows what the template failed on
            problem = _explain(error, name, source, sensitive)
        else:
            if not isinstance(content, str):
                # A template that is one expression yields that expression's value, without the final newline.
                content = "" if content is None else str(content) + "\n" * source.endswith("\n")
            return str(content)
        raise TemplateError(f"template {name}: {problem}")

    def _source(self, name):
        """(The text of a template, what to have Ansible render for it): the first of that name in the search path.

        Ansible compiles what it renders each time, and what that includes only once: with many apps, a third of the
        time. Only for the roles' own: others may be encrypted, or begin with settings (``#jinja2:``), of which an
        include knows nothing.
        """
        for directory in self._search_path:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                try:
                    source = self._loader.get_text_file_contents(path)
                except AnsibleError as error:  # encrypted, and no vault password is given
                    raise TemplateError(f"template {name}: {error}") from None
                of_role = directory in self._of_roles and not os.path.isabs(name)
                return source, trust_as_template(_including(name, source) if of_role else source)
        raise TemplateError(f"template {name}: not found in {', '.join(self._search_path)}")


def _lies_in(path, folder):
    return os.path.realpath(path).startswith(os.path.join(folder, ""))


def _including(name, source):
    """A template that is the same as the one of this name, whose text is ``source``."""
    # of its newlines Jinja drops one, and Ansible then sees to it that there are as many as here
    newlines = source[len(source.rstrip("\n")) :][:2]
    return f"{{% include {name!r} %}}{newlines}"


def _explain(error, template, source, sensitive):
    """Say what is wrong with a template and in which line, as far as that can be told."""
    if isinstance(error, AnsibleUndefinedVariable):
        name = str(error).rpartition("'")[0].rpartition("'")[2]
        line = _line_with(name, source)
        if line:  # so the name stands in the template and is no value
            return f"line {line}: " + (f"'{name}' is undefined" if sensitive else str(error))
    where = _failing_line(error, template)
    # The text of an exception may tell the value that it failed on.
    text = f"{type(error).__name__}, withheld because the file is sensitive" if sensitive else str(error)
    return f"{where}: {text}" if where else text


def _line_with(name, source):
    """The number of the first line with the word ``name`` in a Jinja expression or statement, or None."""
    pattern = re.compile(rf"\{{[{{%].*\b{re.escape(name)}\b")
    return next((number for number, line in enumerate(source.splitlines(), 1) if name and pattern.search(line)), None)


def _failing_line(error, name):
    """Where in the template ``name`` an exception was raised: ``line N``, after the name of an included one; "" if
    unknown.
    """
    where = ""
    while error:
        if isinstance(error, TemplateSyntaxError):
            return _place(error.name, error.lineno, name)
        traceback = error.__traceback__
        while traceback:
            template = traceback.tb_frame.f_globals.get("__jinja_template__")
            if template:
                line = template.get_corresponding_lineno(traceback.tb_lineno)
                where = _place(template.name, line, name)
            traceback = traceback.tb_next
        error = error.__cause__
    return where


def _place(name, line, outer):
    return f"{name} line {line}" if name not in (None, outer) else f"line {line}"
