# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the status: what it shows, that nobody can write into it, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils import status_page as module
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.status_page import (
    COLUMNS,
    HEALTH,
    days_left,
    health,
    states,
    status_page,
)

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from chromium import PROGRAM, Chromium  # noqa: E402
from fleet import DAY, NOW, fleet  # noqa: E402

HELLO = {
    "host": "web1",
    "app": "hello",
    "healthy": True,
    "state": "settled",
    "release": "1d7b60d2-5f3a9c11",
    "commit": "1d7b60d2" + "0" * 32,
    "subject": "Say hello",
    "url": "https://hello.test/",
    "since": NOW - DAY,
}
GONE = {"host": "web2", "app": None, "healthy": False, "problem": "connection timed out"}
EVIL = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&amp;\u202etxt\x1b[2J"


class Page(HTMLParser):
    """What a page is made of.

    :ivar tags: (name, attributes) of its elements, in their order
    :ivar rows: the cells of its rows, as texts
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self._open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def cells(entry):
    return dict(zip(COLUMNS, Page(status_page([entry], now=NOW)).rows[1]))


@pytest.mark.parametrize(
    "changes, column, shown",
    [
        ({}, "App", "hello"),
        ({}, "Host", "web1"),
        ({}, "Health", "ok"),
        ({"state": "settling"}, "Health", "settling"),
        ({"healthy": False, "problem": "no answer"}, "Health", "failedno answer"),
        (
            {"processes": [{"process": "worker", "state": "dead", "healthy": False}]},
            "Health",
            "degradedprocess worker: dead",
        ),
        (
            {"schedules": [{"schedule": "tidy", "result": "exit-code", "healthy": False}]},
            "Health",
            "degradedschedule tidy: exit-code",
        ),
        ({}, "Release", "1d7b60d2-5f3a9c11"),
        ({"release": None}, "Release", ""),
        ({}, "Commit", "1d7b60d2 Say hello"),
        ({}, "Since", "2026-11-27 06:00"),
        ({"since": None}, "Since", ""),
        ({"certificate": NOW + 30.5 * DAY}, "Certificate", "30 days"),
        ({"certificate": NOW - 1}, "Certificate", "expired"),
        ({}, "Certificate", ""),
        (
            {
                "releases": [
                    {"release": "bad", "subject": "Try", "state": "failed", "reason": "why"},
                    {"release": "good"},
                ]
            },
            "Failed releases",
            "1 failedbad Trywhy",
        ),
        (
            {"drift": [{"what": "/etc/a was changed", "since": NOW}, {"what": "/etc/b is gone", "since": None}]},
            "Drift",
            "2 differences/etc/a was changed, 2026-11-28 06:00/etc/b is gone",
        ),
        (
            {"backups": [{"backup": "x.dump", "made": NOW, "size": 3 << 19}]},
            "Backups",
            "1 dump2026-11-28 06:00, 1.5 MiB: x.dump",
        ),
    ],
)
def test_cells(changes, column, shown):
    assert cells({**HELLO, **changes})[column] == shown


def test_a_host_that_was_not_reached():
    shown = cells(GONE)
    assert shown == {
        **dict.fromkeys(COLUMNS, ""),
        "App": "–",
        "Host": "web2",
        "Health": "unreachableconnection timed out",
    }


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, ["ok"]),
        ({"certificate": NOW + 19 * DAY}, ["ok", "expiring", "attention"]),
        ({"drift": [{}]}, ["ok", "drift", "attention"]),
        ({"healthy": False}, ["failed", "attention"]),
        ({"releases": [{"state": "failed"}]}, ["ok", "rejected"]),
    ],
)
def test_what_the_filter_finds(changes, expected):
    assert states({**HELLO, **changes}, NOW) == expected


def test_sort_keys():
    entry = {**HELLO, "certificate": NOW + 9 * DAY, "drift": [{"what": "a", "since": None}] * 12}
    keys = [each.get("data-key") for each in Page(status_page([entry], now=NOW)).attributes("td")]
    assert keys == [None, str(HEALTH.index("ok")), None, None, str(NOW - DAY), "9", "0", "12", "0"]
    keys = [each.get("data-key") for each in Page(status_page([GONE], now=NOW)).attributes("td")]
    assert keys == [None, "0", None, None, "", "", "0", "0", "0"], "what is not known is empty"


def test_nobody_can_write_into_the_page():
    """Whatever an attacker's commit, app or journal says, the page has the elements of one that says nothing of it."""

    def entry(text):
        return {
            **{key: text for key in ("host", "app", "release", "commit", "subject", "problem")},
            "url": f"https://hello.test/{text}",
            "healthy": False,
            "processes": [{"process": text, "state": text, "healthy": False}],
            "schedules": [{"schedule": text, "result": text, "healthy": False}],
            "releases": [{"release": text, "subject": text, "state": "failed", "reason": text}],
            "drift": [{"what": text, "since": None}],
            "backups": [{"backup": text, "made": NOW, "size": 1}],
        }

    plain, evil = (Page(status_page([entry(text)], title=text, now=NOW)) for text in ("x.y", EVIL + "."))
    assert [tag for tag, _attributes in evil.tags] == [tag for tag, _attributes in plain.tags]
    assert [sorted(attributes) for _tag, attributes in evil.tags] == [sorted(each) for _tag, each in plain.tags]
    text = status_page([entry(EVIL)], now=NOW)
    assert "\u202e" not in text and "\x1b" not in text
    assert "&lt;script&gt;alert(1)" in text and "&amp;amp;" in text


@pytest.mark.parametrize("url", ["javascript:alert(1)", " https://hello.test/", "//hello.test", "", None])
def test_only_web_addresses_become_links(url):
    assert not Page(status_page([{**HELLO, "url": url}], now=NOW)).attributes("a")


def test_the_policy_allows_what_is_in_the_page_and_nothing_else():
    text = status_page([HELLO], now=NOW)
    policy = Page(text).attributes("meta")[1]["content"]
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert " style=" not in text and not re.search(r" on\w+=", text)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme):
    """WCAG 2.2 AA asks for 4.5 for text, and 3 for what surrounds controls and the focus."""
    block = re.findall(r":root \{(.*?)\}", module.FILES.joinpath("status.css").read_text(), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    pairs = [(each, back, 4.5) for each in ("text", "muted", "link") for back in ("back", "soft")]
    pairs += [(each, f"{each}-back", 4.5) for each in ("ok", "warn", "bad")]
    pairs += [(each, "back", 3) for each in ("line", "focus")]
    for front, back, least in pairs:
        lighter, darker = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= least, (front, back)


def test_days_and_health_of_little():
    assert days_left({"app": "hello"}, NOW) is None
    assert health({"app": "hello", "healthy": True}) == "ok"


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


@pytest.mark.skipif(not PROGRAM, reason="there is no chromium on this machine")
class TestInABrowser:
    @pytest.fixture
    def opened(self, browser, tmp_path):
        """Open a page of entries; returns the browser, with nothing noted yet."""

        def opened(entries, width=1280, dark=False, scripts=True):
            browser.problems.clear()
            browser.requests.clear()
            browser.look(width, 720, dark, scripts)
            page = tmp_path / "status.html"
            page.write_text(status_page(entries, now=NOW), encoding="utf-8")
            browser.open(page)
            return browser

        return opened

    @staticmethod
    def shown(browser, column=0):
        return browser.evaluate(
            f"[...document.querySelectorAll('tbody tr:not([hidden])')].map(row => row.cells[{column}].textContent)"
        )

    def test_it_asks_for_nothing_and_complains_of_nothing(self, opened):
        browser = opened([HELLO, GONE, *fleet(3, 4)])
        assert browser.requests == [browser.evaluate("location.href")]
        assert browser.problems == []

    def test_nothing_of_an_attacker_runs(self, opened):
        browser = opened([{**HELLO, "subject": EVIL, "problem": EVIL, "healthy": False}])
        assert browser.problems == [] and browser.evaluate("document.images.length") == 0
        browser.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
        )
        assert browser.evaluate("window.ran") is None, "the policy"

    def test_filter(self, opened):
        browser = opened([HELLO, {**HELLO, "app": "shop", "subject": "Sell tea", "healthy": False}, GONE])
        assert self.shown(browser) == ["–", "hello", "shop"]
        browser.evaluate("document.querySelector('input').focus()")
        browser.press("TEA web1")
        browser.evaluate("new Promise(requestAnimationFrame)")
        assert self.shown(browser) == ["shop"]
        assert browser.evaluate("document.getElementById('count').textContent") == "1 of 3 rows"
        browser.evaluate("document.querySelector('input').select()")
        browser.press("hello")
        choose = "{const s = document.querySelector('select'); s.value = '%s'; s.dispatchEvent(new Event('change'))}"
        browser.evaluate(choose % "attention")
        assert self.shown(browser) == []
        browser.evaluate(choose % "ok")
        assert self.shown(browser) == ["hello"]

    def test_sort_by_keyboard(self, opened):
        entries = [{**HELLO, "app": f"app{number}", "certificate": NOW + number * DAY} for number in (2, 10, 9)]
        browser = opened([*entries, {**HELLO, "app": "none"}])
        browser.evaluate("document.querySelector('thead button').focus()")
        browser.press(*["Tab"] * 6, "Enter")
        assert self.shown(browser) == ["app2", "app9", "app10", "none"]
        sorts = "[...document.querySelectorAll('thead th')].map(each => each.getAttribute('aria-sort'))"
        assert browser.evaluate(sorts) == [None] * 6 + ["ascending"] + [None] * 3
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
        browser.press("Enter")
        assert self.shown(browser) == ["app10", "app9", "app2", "none"], "what is not known stays last"
        assert browser.evaluate(sorts)[6] == "descending"
        browser.evaluate("document.querySelector('thead button').click()")
        assert self.shown(browser) == ["app2", "app9", "app10", "none"], "numbers in names count as such"

    def test_what_a_screen_reader_meets(self, opened):
        browser = opened([HELLO, GONE], width=390)
        tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in tree if not node["ignored"]]
        assert roles.count("table") == 1 and roles.count("rowheader") == 2, "also as cards"
        controls = {
            (node["role"]["value"], node["name"]["value"])
            for node in tree
            if node["role"]["value"] in ("searchbox", "combobox") and not node["ignored"]
        }
        assert controls == {("searchbox", "Search"), ("combobox", "Show"), ("combobox", "Sort by")}

    def test_on_a_phone_nothing_lies_beside_the_window(self, opened):
        long = {**HELLO, "subject": "x" * 300, "problem": "y" * 300, "healthy": False, "host": "z" * 80}
        browser = opened([long, *fleet(3, 4)], width=390)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        assert browser.evaluate("getComputedStyle(document.querySelector('td'), '::before').content") == '"Host"'

    def test_in_the_dark(self, opened):
        background = "getComputedStyle(document.body).backgroundColor"
        assert opened([HELLO]).evaluate(background) == "rgb(255, 255, 255)"
        assert opened([HELLO], dark=True).evaluate(background) == "rgb(13, 17, 23)"

    def test_without_scripts(self, opened):
        browser = opened([HELLO, GONE], scripts=False)
        assert self.shown(browser) == ["–", "hello"]
        assert browser.evaluate("getComputedStyle(document.getElementById('filter')).display") == "none"
        assert browser.evaluate("document.querySelectorAll('button').length") == 0
