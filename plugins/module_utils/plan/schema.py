# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles' argument specifications as the one schema of their variables, and the judgement of values by it."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from . import rules, values

ROLES = Path(__file__).resolve().parents[3] / "roles"

_TYPES = {
    "str": (str, "a string"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
    "dict": (dict, "a dictionary"),
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

# Names to strings or whole numbers.
_ENVIRONMENTS = ("env", "secrets")
# Names of headers to their values.
_HEADERS = ("headers", "site.headers")
# Variables that are lists of what people declare, and the rules of their keys.
_LISTS = {"flask_apps": rules.APP_RULES, "nginx_sites": rules.SITE_RULES}
# What only a site of its own has: the rest is what an app may have in its dictionary `site`.
_SITE_ALONE = (
    "name", "domain", "aliases", "state", "upstream", "balancing", "root", "redirect", "redirect_status", "static",
    "tls",
)  # fmt: skip
# The user's names to dictionaries of the specified options, or to a string as short for the command alone.
_NAMED = ("processes", "schedules")


class Option(NamedTuple):
    """One option of an argument specification, with its rule and an example of its right shape (YAML).

    key: its name; dotted when it belongs to a dictionary of an app, such as `server.threads`.
    """

    key: str
    type: str
    elements: str
    choices: tuple
    default: Any
    required: bool
    options: dict[str, Option]
    rule: rules.Rule | None
    example: str

    def filled(self, value: Any) -> Any:
        """Add the defaults of a dictionary's own options. An empty one of which an option is required means "none"."""
        if self.type != "dict" or not self.options or self.key in _NAMED:
            return value
        if not value and any(option.required for option in self.options.values()):
            return value
        return {name: option.filled(value.get(name, option.default)) for name, option in self.options.items()}


@cache
def role_options(role: str) -> dict[str, Option]:
    """Read the options of a role's main entry point, by variable name. Those of an app are below `flask_apps`,
    those of a site below `nginx_sites`.

    Raises OSError, KeyError or yaml.YAMLError when the collection is damaged.
    """
    specs = _specifications(role)
    if role == "flask_app":
        site = _specifications("nginx_site")["nginx_sites"]["options"]
        app = specs["flask_apps"]["options"]
        app["tls"]["options"] = site["tls"]["options"]
        app["processes"]["options"]["limits"]["options"] = app["limits"]["options"]
        app["site"]["options"] = {key: spec for key, spec in site.items() if key not in _SITE_ALONE}
    return {name: _option(name, spec, rules.ROLE_RULES, f"{name}: {{}}".format) for name, spec in specs.items()}


def _specifications(role):
    """Read the argument specification of a role's main entry point."""
    import yaml  # Ansible brings it to the controller; a target may have none

    text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    specs = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return specs["argument_specs"]["main"]["options"]


def _option(key, spec, known_rules, shape):
    """Make an Option. shape: sets the YAML of its value into that of everything around it."""
    kind = spec.get("type", "str")
    rule = known_rules.get(key)
    choices = tuple(spec.get("choices", ()))
    example = rule.example if rule else choices[0] if choices else json.dumps(spec.get("default"))
    is_list = key in _LISTS

    def inner_shape(name):
        def around(value):
            entry = f"{name}: {value}"
            if is_list:
                return entry
            entry = f"{{{entry}}}"
            return shape(f"{{nightly: {entry}}}" if key in _NAMED else f"[{entry}]" if kind == "list" else entry)

        return around

    return Option(
        key=key,
        type=kind,
        elements=spec.get("elements", ""),
        choices=choices,
        default=spec.get("default"),
        required=spec.get("required", False),
        rule=rule,
        example=shape(f"[{example}]" if kind == "list" else example),
        options={
            name: _option(name if is_list else f"{key}.{name}", inner, _LISTS.get(key, known_rules), inner_shape(name))
            for name, inner in spec.get("options", {}).items()
        },
    )


class Judge:
    """Judges values by their options and collects what is wrong with them in `errors`, one sentence each.

    No error tells the value of a key that could hold a secret, nor any value that is not a short scalar.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []

    def refuse(self, place: str, key: str, problem: str, example: str = "") -> None:
        """Note an error.

        place: such as `flask_apps[2] (hello)`, empty for a role's variable itself. key: as people write it, such as
        `static[0].url`, empty when it is the place as a whole. example: YAML of the right shape.
        """
        start = ": ".join(([place] if place else []) + ([f"`{key}`"] if key else []))
        self.errors.append(f"{start} {problem}" + (f"; for example `{example}`" if example else ""))

    def unknown(self, place: str, prefix: str, key: Any, known: Any) -> None:
        """Refuse a key that is none of the known ones, naming the nearest. prefix: as in `server.`."""
        if not isinstance(key, str) or not values.PLAIN_WORD.fullmatch(key):
            self.refuse(place, prefix.rstrip("."), "has a key that is not a plain word")
            return
        nearest = difflib.get_close_matches(key.lower().replace("-", "_"), known, 1)
        hint = f"did you mean `{prefix}{nearest[0]}`?" if nearest else f"known are {', '.join(known) or 'none'}"
        self.refuse(place, prefix + key, f"is not known; {hint}")

    def options(self, place: str, options: dict[str, Option], given: dict, prefix: str = "") -> dict[str, Any]:
        """Judge a dictionary of options. Returns those that passed, converted; defaults are not filled in."""
        good = {}
        for key, value in given.items():
            option = options.get(key) if isinstance(key, str) else None
            if option is None:
                self.unknown(place, prefix, key, options)
                continue
            before = len(self.errors)
            value = self.value(place, prefix + key, option, value)
            if len(self.errors) == before:
                good[key] = value
        return good

    def value(self, place: str, key: str, option: Option, value: Any) -> Any:
        """Judge one value and return it converted. What it returns after an error is of no use."""
        before = len(self.errors)
        value = self._typed(place, key, option, option.type, value)
        if len(self.errors) == before and value != option.default:
            value = self._content(place, key, option, value)
        return value

    def _typed(self, place, key, option, kind, value):
        """Convert as Ansible does for what a command line can only give as text, and no further."""
        if kind == "raw":
            return value
        if kind == "int" and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
            return int(value)
        if kind == "bool" and isinstance(value, str) and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        if kind == "list" and isinstance(value, str) and not place:
            return [part.strip() for part in value.split(",") if part.strip()]
        python_type, words = _TYPES[kind]
        if not isinstance(value, python_type) or (kind == "int" and isinstance(value, bool)):
            hint = ""
            if value is None:
                hint = " (it is empty: leave the key out for its default)"
            elif kind == "str" and not isinstance(value, (list, dict)):
                hint = " (quote it, or YAML changes it)"
            self._must(place, key, option, words + hint, value)
        elif kind == "str" and values.has_control_characters(value, lines := bool(option.rule and option.rule.lines)):
            shape = "text" if lines else "one line of text"
            self.refuse(place, key, f"must be {shape} without control characters", option.example)
        return value

    def _content(self, place, key, option, value):
        if option.key in _ENVIRONMENTS:
            return self._environment(place, key, option, value)
        if option.key in _NAMED:
            return self._named(place, key, option, value)
        if option.key in _HEADERS:
            return self._headers(place, key, option, value)
        if option.type == "list":
            return [self._element(place, f"{key}[{index}]", option, element) for index, element in enumerate(value)]
        if option.options:
            return self.options(place, option.options, value, f"{key}.")
        return self._allowed(place, key, option, value)

    def _element(self, place, key, option, element):
        before = len(self.errors)
        element = self._typed(place, key, option, option.elements, element)
        if len(self.errors) > before:
            return None
        return (self._complete if option.options else self._allowed)(place, key, option, element)

    def _named(self, place, key, option, given):
        good = {}
        for position, (name, value) in enumerate(given.items(), 1):
            if not isinstance(name, str) or not values.is_process_name(name):
                self.refuse(
                    place,
                    key,
                    f"must have names that are {values.PROCESS_NAME_WORDS}, which number {position} is not",
                    option.example,
                )
                continue
            value = {"command": value} if isinstance(value, str) else value
            if not isinstance(value, dict):
                self.refuse(place, f"{key}.{name}", "must be a dictionary", option.example)
                continue
            good[name] = self._complete(place, f"{key}.{name}", option, value)
        return good

    def _complete(self, place, key, option, given):
        """Judge a dictionary no other layer adds to: what it requires must be in it, and defaults are filled in."""
        for name, inner in option.options.items():
            if inner.required and name not in given:
                self.refuse(place, f"{key}.{name}", "is missing", inner.example)
        good = self.options(place, option.options, given, f"{key}.")
        return {name: inner.filled(good.get(name, inner.default)) for name, inner in option.options.items()}

    def _environment(self, place, key, option, given):
        good = {}
        for position, (name, value) in enumerate(given.items(), 1):
            if not isinstance(name, str) or not values.ENVIRONMENT_NAME.fullmatch(name):
                self.refuse(
                    place,
                    key,
                    "must have names of letters, digits and underscores that do not begin with a "
                    f"digit, which number {position} is not",
                    option.example,
                )
                continue
            problem = values.environment_problem(name, value)
            if problem:
                self.refuse(place, f"{key}.{name}", problem)
            else:
                good[name] = str(value)
        return good

    def _headers(self, place, key, option, given):
        for name, value in given.items():
            if not isinstance(name, str) or not values.HEADER_NAME.fullmatch(name):
                self.refuse(place, key, "must have names of headers, of letters, digits and hyphens", option.example)
            elif not isinstance(value, str) or not values.HEADER_VALUE.fullmatch(value):
                self.refuse(place, f"{key}.{name}", 'must be printable ASCII text without ", \\ and $', option.example)
        return given

    def _allowed(self, place, key, option, value):
        if option.choices and value not in option.choices:
            self._must(place, key, option, "one of " + ", ".join(option.choices), value)
        elif option.rule is not None and not option.rule.check(value):
            self._must(place, key, option, option.rule.expected, value)
        return value

    def _must(self, place, key, option, expected, value):
        shown = option.choices or option.type in ("int", "bool") or (option.rule is not None and option.rule.shown)
        got = f", not {value!r}" if shown and _is_short(value) else ""
        self.refuse(place, key, f"must be {expected}{got}", option.example)


def _is_short(value):
    return len(value) <= 40 if isinstance(value, str) else isinstance(value, (int, float)) and abs(value) < 10**15


def role_variables() -> dict[str, Option]:
    """List the variables that a plan reads: those of the roles, `flask_apps` as flask_app specifies it."""
    roles = ("load_balancer", "backing_service", "nginx_site", "flask_app")
    return {name: option for role in roles for name, option in role_options(role).items()}
