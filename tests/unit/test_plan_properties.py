# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the variables are: a plan or a list of errors, and never a secret."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import PlanError, collect_secrets, make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.schema import role_variables
from hypothesis import given, settings
from hypothesis import strategies as st

CANARY = "canary-0d1f"
PLATFORM = {"os_family": "RedHat", "proxy_user": "nginx", "python": "python3"}
OPTIONS = role_variables()
APP_OPTIONS = OPTIONS["flask_apps"].options

NAMES = st.sampled_from(["hello", "other", "network", "Hello", "a" * 26, ""])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(["/", "..", "-x", "a\nb", "{{ x }}", "HEAD", "2xx", "auto", "present", "absent"]),
)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=8
)
# Where a secret may be: where it belongs, in the wrong shape, with a value or under a name that is refused.
SECRET = st.sampled_from([CANARY, f"{CANARY}\0", f"{CANARY}\ud800", [CANARY], {"A": CANARY}])
SECRETS = st.dictionaries(st.sampled_from(["A", "B", "PATH", "a-b", f"A={CANARY}"]), SECRET, max_size=3)
SECRETS = SECRETS | SECRET | st.just({"A": CANARY})
REPOSITORY = st.sampled_from(
    [
        f"https://me:{CANARY}@git.test/x",
        f"https://{CANARY}@git.test/x",
        f"ssh://git:{CANARY}@git.test/x",
        f"https://me:{CANARY}@/",
        f"https://me:a/{CANARY}@git.test/x",
        f"me:{CANARY}@git.test:x",
        f"ext::{CANARY}",
        f"https://git.test/x?token={CANARY}",
        f"https://me:{CANARY}\n@git.test/x",
        [CANARY],
        "/srv/git/hello",
    ]
)
SECRET_KEYS = {
    "repository": REPOSITORY,
    "secrets": SECRETS,
    "secretes": SECRETS,
    "passwords": SECRET,
    "env": st.dictionaries(st.sampled_from(["A", "C", "PATH", "a-b"]), SCALARS, max_size=3),
}


@st.composite
def values(draw, option):
    """A value for an option, now and then near enough to the right one to lead further in."""
    kind = draw(st.sampled_from(["data", "list", "usual", "inner", "inner", "inner"]))
    if kind == "inner" and option.options:
        entry = st.dictionaries(st.sampled_from([*option.options, "unknown"]), DATA, max_size=4)
        return draw(st.one_of(entry, st.lists(entry, max_size=2), st.dictionaries(NAMES, entry, max_size=2)))
    if kind == "list":
        return draw(st.lists(DATA, max_size=2))
    return draw(DATA) if kind == "data" else draw(st.sampled_from([option.default, *option.choices]))


@st.composite
def apps(draw):
    """Some keys of an app, mostly with the required ones right."""
    if draw(st.integers(0, 9)) == 0:
        return draw(DATA)
    app = {}
    if draw(st.integers(0, 9)):
        domains = st.sampled_from(["a.test", "b.test"])
        app = {"name": draw(NAMES), "domain": draw(domains), "repository": draw(REPOSITORY)}
    for key in draw(st.lists(st.sampled_from([*APP_OPTIONS, *SECRET_KEYS]), max_size=3)):
        app[key] = draw(SECRET_KEYS[key] if key in SECRET_KEYS else values(APP_OPTIONS[key]))
    return app


@st.composite
def variables(draw):
    """The roles' variables."""
    given_variables = {"flask_apps": draw(st.lists(apps(), max_size=3))}
    for name in draw(st.lists(st.sampled_from(list(OPTIONS)), max_size=2)):
        given_variables[name] = draw(values(OPTIONS[name]) if name != "flask_apps" else DATA)
    if draw(st.booleans()):
        given_variables["flask_app_defaults"] = draw(apps())
        given_variables["flask_app_overrides"] = draw(st.dictionaries(NAMES, apps(), max_size=2))
    return given_variables


@settings(max_examples=300, deadline=None, database=None)
@given(given_variables=variables(), hostname=st.text(max_size=80))
def test_a_plan_or_errors(given_variables, hostname):
    try:
        plan = make_plan(given_variables, PLATFORM, hostname)
    except PlanError as error:
        assert error.errors
        assert CANARY not in str(error)
        assert error.__cause__ is None and error.__context__ is None
        assert all(line.isprintable() for line in error.errors)
    else:
        assert CANARY not in json.dumps(plan)
        assert set(collect_secrets(given_variables)) == {app["name"] for app in plan["apps"]}


def app(number, **keys):
    return {"name": f"app{number}", "domain": f"app{number}.test", "repository": "https://git.test/x.git", **keys}


def test_ten_thousand_apps():
    """All are planned, and of one that is wrong among them nothing else is told."""
    declared = [app(number) for number in range(10_000)]
    assert len(make_plan({"flask_apps": declared}, PLATFORM, "web1")["apps"]) == 10_000
    declared[5_000]["domain"] = "app0.test"
    with pytest.raises(PlanError) as caught:
        make_plan({"flask_apps": declared}, PLATFORM, "web1")
    assert len(caught.value.errors) == 1 and "app5000" in caught.value.errors[0]


@pytest.mark.parametrize("key", APP_OPTIONS)
@pytest.mark.parametrize("wrap", [str, lambda text: [text], lambda text: {"KEY": text}], ids=["text", "list", "dict"])
def test_a_value_of_a_megabyte(key, wrap):
    """Carried through whole, or refused in few words."""
    value = wrap("x" * 1_000_000)
    variables = {"flask_apps": [app(1, **{key: value})]}
    try:
        plan = make_plan(variables, PLATFORM, "web1")
    except PlanError as error:
        assert error.errors and len(str(error)) < 2_000
    else:
        carried = {"plan": plan["apps"], "secrets": collect_secrets(variables)}
        assert "x" * 1_000_000 in json.dumps(carried)
