# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How secrets travel and how they are kept out of what people read, and the lines that people read."""

from __future__ import annotations

import re

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode, encode, scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import (
    changes,
    failure,
    release_line,
    unexpected,
)
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
        ("`make` exited with status 2", "make", 2, "hello: step: `make` exited with status 2"),
        ("exited with status 3", "flask warm-up", 3, "hello: step: exited with status 3 (`flask warm-up`)"),
        ("GET / answered 500", "GET /", 500, "hello: step: GET / answered 500"),
    ],
)
def test_failure_names_what_failed_once(message, command, status, text):
    assert failure("hello", "step", message, [], command, status)["text"] == text


@pytest.mark.parametrize(
    "error, expected",
    [
        (OSError(28, "No space left on device", "/opt/x"), "OSError: No space left on device: /opt/x"),
        (OSError(30, "Read-only file system"), "OSError: Read-only file system"),
        (OSError("c4n4ry"), "OSError"),
        (ValueError("c4n4ry"), "ValueError"),
    ],
)
def test_unexpected(error, expected):
    assert unexpected(error) == expected


def test_changes():
    assert changes("hello", "a", "b", ["1f3a9c0 Say hello"], ["env.X changed"]) == (
        "hello: a -> b\n  + 1f3a9c0 Say hello\n  ~ env.X changed\n"
    )
    assert changes("hello", "b", "a", ["1f3a9c0 Say hello"], [], back=True) == "hello: b -> a\n  - 1f3a9c0 Say hello\n"
    assert changes("hello", None, None, None, []) == (
        "hello: nothing -> unknown until deployed\n  commits: known when the run has fetched them\n"
    )


@pytest.mark.parametrize(
    "before, after, seconds, mended, expected",
    [
        (None, "b", 0.41, [], "hello: nothing -> b in 0.41 s, http://hello.test/"),
        ("a", "b", 0.41, [], "hello: a -> b in 0.41 s, http://hello.test/"),
        ("a", "b", 0, [], "hello: a -> b, http://hello.test/"),
        ("a", "a", 0, [], "hello: a unchanged, http://hello.test/"),
        ("a", "a", 0, ["it did not run", "settings"], "hello: a mended (it did not run; settings), http://hello.test/"),
        ("a", None, 0, [], "hello: a -> unknown until deployed, http://hello.test/"),
    ],
)
def test_release_line(before, after, seconds, mended, expected):
    entry = {"from": before, "to": after, "seconds": seconds, "mended": mended, "url": "http://hello.test/"}
    entry |= {"release_commands": [], "release_leader": ""}
    assert release_line("hello", entry) == expected


@pytest.mark.parametrize(
    "commands, leader, expected",
    [
        (["flask db upgrade", "flask seed"], "", "hello: a -> b after `flask db upgrade` and `flask seed`, http://h/"),
        ([], "web1", "hello: a -> b (its release commands are web1's to run), http://h/"),
    ],
)
def test_release_line_tells_of_release_commands(commands, leader, expected):
    entry = {"from": "a", "to": "b", "seconds": 0, "mended": [], "url": "http://h/"}
    assert release_line("hello", {**entry, "release_commands": commands, "release_leader": leader}) == expected
