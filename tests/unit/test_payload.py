# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How secrets travel and how they are kept out of what people read, and the lines that people read."""

from __future__ import annotations

import re

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode, encode, scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import changes, failure, release_line
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50)
@given(JSON)
def test_what_is_encoded_can_be_decoded(value):
    text = encode(value)
    assert decode(text) == value
    assert re.fullmatch(r"[A-Za-z0-9+/]*=*", text)


@pytest.mark.parametrize(
    "text, secrets, expected",
    [
        ("password: s3cret!", ["s3cret!"], "password: ********"),
        ("abc abcdef", ["abc", "abcdef"], "******** ********"),
        ("abcdef", ["abc", "abcdef", "bcd"], "********"),
        ("port 5432", [5432], "port ********"),
        ("nothing", ["", "other"], "nothing"),
        ("nothing", [], "nothing"),
        ("two\nlines", ["two\nlines"], "********"),
        ("a.c abc", ["a.c"], "******** abc"),
        ("key: MIIE", ["BEGIN\nMIIE\n\nEND\n"], "key: ********"),
        ("two words", ["two\n \nlines"], "******** words"),
    ],
)
def test_scrub(text, secrets, expected):
    assert scrub(text, secrets) == expected


@given(st.lists(st.text("abcXY", min_size=1), min_size=1), st.text("abcXY"), st.text("abcXY"))
def test_scrub_leaves_no_secret(secrets, before, behind):
    scrubbed = scrub(before + secrets[0] + behind, secrets)
    assert not any(secret in scrubbed for secret in secrets)


def test_failure():
    assert failure("hello", "probe", "no answer", ["Traceback", "KeyError"]) == {
        "app": "hello",
        "step": "probe",
        "message": "no answer",
        "command": "",
        "status": None,
        "output": ["Traceback", "KeyError"],
        "text": "hello: probe: no answer\n    Traceback\n    KeyError",
    }
    assert failure("hello", "start", "no proxy", [])["text"] == "hello: start: no proxy"


@pytest.mark.parametrize(
    "message, command, status, text",
    [
        ("unit@a3-b3 exited", "unit", 3, "hello: step: unit@a3-b3 exited, status 3"),
        ("exited", "flask warm-up", 3, "hello: step: exited, status 3 (`flask warm-up`)"),
        ("exited with status 3", "flask warm-up", 3, "hello: step: exited with status 3 (`flask warm-up`)"),
        ("GET / answered 500", "GET /", 500, "hello: step: GET / answered 500"),
    ],
)
def test_failure_names_what_failed_once(message, command, status, text):
    assert failure("hello", "step", message, [], command, status)["text"] == text


def test_changes():
    assert changes("hello", "a", "b", ["1f3a9c0 Say hello"], ["env.X changed"]) == (
        "hello: a -> b\n  + 1f3a9c0 Say hello\n  ~ env.X changed\n"
    )
    assert changes("hello", "b", "a", ["1f3a9c0 Say hello"], [], back=True) == "hello: b -> a\n  - 1f3a9c0 Say hello\n"
    assert changes("hello", None, None, None, []) == (
        "hello: nothing -> unknown until deployed\n  commits: known when the run has fetched them\n"
    )


@pytest.mark.parametrize(
    "before, after, seconds, started, expected",
    [
        (None, "b", 0.41, False, "hello: nothing -> b in 0.41 s, http://hello.test/"),
        ("a", "b", 0.41, False, "hello: a -> b in 0.41 s, http://hello.test/"),
        ("a", "b", 0, False, "hello: a -> b, http://hello.test/"),
        ("a", "a", 0, False, "hello: a unchanged, http://hello.test/"),
        ("a", "a", 0, True, "hello: a started, http://hello.test/"),
        ("a", None, 0, False, "hello: a -> unknown until deployed, http://hello.test/"),
    ],
)
def test_release_line(before, after, seconds, started, expected):
    entry = {"from": before, "to": after, "seconds": seconds, "url": "http://hello.test/"}
    assert release_line("hello", entry, started) == expected
