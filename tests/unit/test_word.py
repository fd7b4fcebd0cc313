# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Word of a run: what is said of it, in which shape, and that nothing of it breaks a run or tells a secret."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils import word

COLLECTIONS = Path(plan.__file__).parents[6]
CANARY = "canary-0d1f"
RELEASED = {"from": "a-1", "to": "b-1", "changed": True, "seconds": 0.4, "url": "http://hello.test/"}
DONE = {"__flask_app_word_done": True}


def releases(errors=(), **apps):
    return {"__flask_app_releases": {"apps": apps, "errors": list(errors)}, **DONE}


def failure(app="shop", step="build", message="`flask translate` exited with status 1"):
    return {"app": app, "step": step, "message": message, "output": [CANARY], "text": CANARY}


def told(rollback=False, **variables):
    return word.message(variables, list(variables), rollback, now=0)


def test_nothing_happened():
    found = told(web1=releases(hello={**RELEASED, "from": "b-1"}), web2=DONE)
    assert (found["event"], found["events"], found["apps"], found["text"]) == ("nothing", [], [], "")


def test_success():
    found = told(web1=releases(hello=RELEASED), web2=releases(hello={**RELEASED, "from": None, "seconds": 0}))
    assert (found["event"], found["events"], found["title"]) == ("success", ["success"], "Deployed: hello")
    assert found["text"].splitlines() == [
        "hello on web1: a-1 -> b-1 in 0.4 s, http://hello.test/",
        "hello on web2: nothing -> b-1, http://hello.test/",
    ]
    assert found["at"] == "1970-01-01T00:00:00Z"
    kept = {key: RELEASED[key] for key in ("from", "to", "seconds", "url")}
    assert found["apps"][0] == {"host": "web1", "app": "hello", "result": "released", **kept, "reason": ""}
    assert told(rollback=True, web1=releases(hello=RELEASED))["title"] == "Rolled back: hello"


def test_an_app_that_failed():
    found = told(web1=releases([failure()], hello=RELEASED))
    assert (found["event"], found["events"], found["title"]) == ("failure", ["failure"], "Deployment failed: shop")
    assert found["text"].splitlines()[0] == "shop on web1: build: `flask translate` exited with status 1"
    assert found["hosts"] == []
    assert CANARY not in json.dumps(found), "output may hold anything"


def test_traffic_that_went_back():
    message = "flask-hello@b-1.service exited; traffic went back to a-1"
    found = told(web1=releases([failure("hello", "settle", message)], hello=RELEASED))
    assert (found["event"], found["title"]) == ("return", "Traffic went back: hello")
    assert found["text"] == f"hello on web1: settle: {message}"
    assert [each["result"] for each in found["apps"]] == ["returned"]


def test_certificates():
    found = told(
        web1={**DONE, "__nginx_site_orders": {"errors": ["docs: refused\nmore"]}}, web2=releases(hello=RELEASED)
    )
    assert found["events"] == ["certificate", "success"]
    assert found["title"] == "Certificates were not issued"
    assert found["certificates"] == [{"host": "web1", "reason": "docs: refused"}]


@pytest.mark.parametrize(
    "registered, reason",
    [
        ({}, "could not be reached, or failed at its start"),
        ({"__flask_app_plan": {"apps": []}}, "a task failed, the run's output tells why"),
        ({"__flask_app_plan": {"failed": True, "msg": "2 errors\n- a"}}, "2 errors"),
        ({"__nginx_site_plan": {"sites": []}, "__nginx_site_nginx": {"failed": True}}, "failed"),
        ({"__flask_app_plan": {"failed": True, "msg": "x" * 400}}, "x" * 300 + "…"),
    ],
)
def test_a_host_that_did_not_come_to_its_end(registered, reason):
    found = told(web1=registered, web2=DONE)
    assert found["hosts"] == [{"host": "web1", "reason": reason}]
    assert (found["event"], found["title"]) == ("failure", "Deployment failed: web1")


@pytest.mark.parametrize(
    "serial, active, expected",
    [
        ([], ["a"], "abcde"),
        ([], [], "abcde"),
        ([2], ["a"], "ab"),
        ([2], ["a", "b", "c"], "abcd"),
        ([2], ["a", "e"], "abcde"),
        ([1, "50%"], ["a"], "a"),
        ([1, "50%"], ["a", "b"], "abc"),
        ([0], ["a"], "abcde"),
    ],
)
def test_whose_turn_has_come(serial, active, expected):
    assert word.reached(list("abcde"), serial, active) == list(expected)


def test_long_ones():
    found = told(**{f"web{number}": releases([failure(f"app{number}")]) for number in range(40)})
    assert found["title"] == "Deployment failed: app0, app1, app2, app3, app4 and 35 more"
    assert len(found["text"].splitlines()) == word.LINES + 1 and found["text"].endswith("\nand 10 more")
    assert len(found["apps"]) == 40


def entry(**changes):
    defaults = plan.role_variables()["flask_app_notify"].options
    return {**{name: option.default for name, option in defaults.items()}, "kind": "webhook", **changes}


SAID = {"event": "failure", "title": "Deployment failed: <a>", "text": "a & b ```"}


def test_shapes():
    body, headers = word.request(entry(), SAID)
    assert json.loads(body) == SAID and headers == {"Content-Type": "application/json"}
    body, _headers = word.request(entry(format="slack"), SAID)
    assert json.loads(body) == {"text": "*Deployment failed: &lt;a&gt;*\n```\na &amp; b '''\n```"}
    body, _headers = word.request(entry(format="mattermost"), SAID)
    assert json.loads(body) == {"text": "**Deployment failed: <a>**\n```\na & b '''\n```"}
    body, headers = word.request(entry(format="ntfy"), {**SAID, "title": "é"})
    assert body == b"a & b ```" and (headers["Title"], headers["Priority"]) == ("?", "high")
    assert word.request(entry(format="ntfy"), {**SAID, "event": "success"})[1]["Tags"] == "white_check_mark"


def test_signature_and_token():
    body, headers = word.request(entry(secret="s", token="t"), SAID)
    assert headers["Authorization"] == "Bearer t"
    assert headers["X-Flaskfleet-Signature-256"] == f"sha256={hmac.new(b's', body, hashlib.sha256).hexdigest()}"


def test_mail():
    text = word.mail(entry(kind="mail", to=["a@b.test", "c@d.test"], **{"from": "e@f.test"}), {**SAID, "text": "ä"})
    letter = email.message_from_bytes(text, policy=email.policy.default)
    assert letter["To"] == "a@b.test, c@d.test" and letter["From"] == "e@f.test"
    assert letter["Subject"] == SAID["title"] and letter.get_content() == "ä\n"


@pytest.fixture
def server():
    """A web server that answers each request with the status in its path; ``received`` has what it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.received.append((self.path, dict(self.headers), body))
            if self.path == "/slow":
                self.server.end.wait(20)
            self.send_response(200 if self.path == "/slow" else int(self.path[1:4]))
            self.send_header("Location", "/200")
            self.end_headers()

        def log_message(self, *_arguments):
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.end = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_deliveries(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    entries = [entry(url=f"{server.url}/{path}") for path in ("204", "500", "302", "200?key=secret")]
    entries.append(entry(url=f"http://127.0.0.1:1/{CANARY}"))
    entries.append(entry(url=f"http://{CANARY}.invalid/"))
    outcomes = word.deliver_all(entries, SAID)
    assert outcomes[:5] == ["", "HTTP status 500", "HTTP status 302", "", "Connection refused"]
    assert outcomes[5] and CANARY not in outcomes[5]
    assert sorted(path for path, _headers, _body in server.received) == ["/200?key=secret", "/204", "/302", "/500"]


def test_nobody_waits_longer_than_said(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    started = time.monotonic()
    assert word.deliver_all([entry(url=f"{server.url}/slow", timeout=1)], SAID) == ["no answer in time"]
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "program, outcome",
    [
        ('cat > "$0.got"; echo "$@" >> "$0.got"', ""),
        ("exit 75", "sendmail exited with status 75"),
        ("exec sleep 20", "sendmail did not end in time"),
        (None, "this machine has no sendmail"),
    ],
)
def test_mails_go_through_sendmail(tmp_path, monkeypatch, program, outcome):
    monkeypatch.setattr(word, "SENDMAIL_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    sendmail = tmp_path / "sendmail"
    if program:
        sendmail.write_text(f"#!/bin/sh\n{program}\n")
        sendmail.chmod(0o755)
    elif subprocess.run(["which", "sendmail"], capture_output=True, check=False).returncode == 0:
        pytest.skip("this machine has one")
    got = word.deliver_all([entry(kind="mail", to=["a@b.test"], timeout=1)], SAID)
    assert got == [outcome] or (got == ["no answer in time"] and "sleep" in program)
    if not outcome:
        assert (tmp_path / "sendmail.got").read_text().endswith("a & b ```\n-t -i\n")


PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"__flask_app_releases": releases([failure()])["__flask_app_releases"]},
        "tasks": [
            {"ansible.builtin.set_fact": {"__flask_app_releases": "{{ __flask_app_releases }}"}},
            {
                "block": [{"ansible.builtin.fail": {"msg": "as apps do"}}],
                "always": [{"ansible.builtin.import_tasks": f"{COLLECTIONS}/ansible_collections/flaskfleet/deploy"
                            "/playbooks/tasks/notify.yml"}],
            },
        ],
    }
]  # fmt: skip


def play(folder, notify, *arguments, hosts="one,two,three,"):
    """Run a play of three hosts that fails, with what the playbooks end with; returns the CompletedProcess."""
    (folder / "mine.yml").write_text(
        json.dumps([{"ansible.builtin.copy": {"content": "{{ flask_app_message.title }}", "dest": f"{folder}/told"}}])
    )
    (folder / "broken.yml").write_text(json.dumps([{"name": "Break", "ansible.builtin.fail": {"msg": CANARY}}]))
    (folder / "play.yml").write_text(json.dumps(PLAY))
    (folder / "variables.yml").write_text(json.dumps({"flask_app_notify": notify}))
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1", "no_proxy": "*"}
    command = [sys.executable, "-m", "ansible", "playbook", "-i", hosts, "-c", "local"]
    command += ["-e", "@variables.yml", *arguments, "play.yml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_one_word_for_all_hosts_and_no_secret_in_any_output(tmp_path, server):
    notify = [
        {"kind": "webhook", "url": f"{server.url}/200/{CANARY}", "token": CANARY, "secret": CANARY},
        {"kind": "webhook", "url": f"{server.url}/500/{CANARY}", "events": ["failure"]},
        {"kind": "webhook", "url": f"{server.url}/200/not-wanted", "events": ["success", "certificate"]},
        {"kind": "tasks", "file": "broken.yml"},
        {"kind": "tasks", "file": "mine.yml"},
    ]
    result = play(tmp_path, notify, "-vvv")
    output = result.stdout + result.stderr
    assert "flask_app_notify[1] (webhook) was not told: HTTP status 500" in output
    assert sorted(path for path, _headers, _body in server.received) == [f"/200/{CANARY}", f"/500/{CANARY}"]
    [(_path, headers, body)] = [each for each in server.received if each[0].startswith("/200")]
    assert headers["Authorization"] == f"Bearer {CANARY}"
    said = json.loads(body)
    assert [each["host"] for each in said["apps"]] == ["one", "two", "three"] and said["event"] == "failure"
    assert (tmp_path / "told").read_text() == "Deployment failed: shop"
    shown = output.replace(f'"msg": "{CANARY}"', "").replace(f"msg: {CANARY}", "")
    mine = [line for line in shown.splitlines() if CANARY in line and "text" not in line and "output" not in line]
    assert not [line for line in mine if f"/{CANARY}" in line or "Bearer" in line or "token" in line], mine
    assert "failed=1" in output and result.returncode == 2, "the play fails as it would have"


def test_hosts_that_fail_without_a_word_on_apps(tmp_path, server):
    """Ansible takes them out of its lists of hosts at once."""
    wrong = [{"kind": "webhook", "url": f"{server.url}/200"}]
    (tmp_path / "hosts.ini").write_text(
        "[appservers]\none\ntwo ansible_connection=ssh ansible_port=1 ansible_host=127.0.0.1\n"
    )
    (tmp_path / "variables.yml").write_text(json.dumps({"flask_app_notify": wrong, "flask_apps": [{"name": "hello"}]}))
    site = "flaskfleet.deploy.site"
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.ini", "-c", "local", "-e", "@variables.yml"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "no_proxy": "*", "ANSIBLE_BECOME": "0"}
    subprocess.run([*command, "-e", "ansible_become=false", site], cwd=tmp_path, env=environment, check=False)
    [(_path, _headers, body)] = server.received
    assert json.loads(body)["hosts"] == [
        {"host": "one", "reason": "2 errors in the variables of one:"},
        {"host": "two", "reason": "could not be reached, or failed at its start"},
    ]


def test_a_rollout_tells_where_it_stopped_and_whom_it_missed(tmp_path, server):
    """Those whose wave has not come are in good order."""
    away = "three ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1"
    (tmp_path / "hosts.ini").write_text(f"[appservers]\none\ntwo\n{away}\n[all:vars]\nansible_become=false\n")
    variables = {"flask_app_notify": [{"kind": "webhook", "url": f"{server.url}/200/x"}], "flask_apps": [{"name": "a"}]}
    (tmp_path / "variables.yml").write_text(json.dumps(variables))
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "no_proxy": "*"}
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.ini", "-c", "local", "-e", "@variables.yml"]
    done = subprocess.run([*command, "flaskfleet.deploy.deploy"], cwd=tmp_path, env=environment, check=False)
    [(_path, _headers, body)] = server.received
    assert done.returncode != 0 and json.loads(body)["events"] == ["failure"]
    assert json.loads(body)["hosts"] == [
        {"host": "one", "reason": "2 errors in the variables of one:"},
        {"host": "three", "reason": "could not be reached, or failed at its start"},
    ]


def test_what_a_rollout_has_undone():
    back = {"hello": {**RELEASED, "from": "b-1", "to": "a-1"}}
    found = told(web1={**releases(hello=RELEASED), "__flask_rollout_returned": {"apps": back}}, web2={})
    assert found["event"] == "failure" and "hello on web1: b-1 -> a-1 in 0.4 s" in found["text"]


@pytest.mark.parametrize("required", [False, True])
def test_a_run_fails_for_it_only_when_asked(tmp_path, required):
    notify = [{"kind": "webhook", "url": f"http://127.0.0.1:1/{CANARY}", "required": required}]
    result = play(tmp_path, notify)
    assert ("failed=2" in result.stdout) == required, result.stdout
    assert "flask_app_notify[0] (webhook) was not told: Connection refused" in result.stdout + result.stderr


def test_a_check_tells_nobody(tmp_path, server):
    play(tmp_path, [{"kind": "webhook", "url": f"{server.url}/200"}], "--check")
    assert server.received == []
