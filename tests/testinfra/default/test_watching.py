# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine tells of its apps: metrics, logs with one request id, and what differs from the list."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

from waiting import wait_for

METRICS = "/var/lib/prometheus/node-exporter/flask_apps.prom"
WATCHED = {
    "flask_app_metrics_file": METRICS,
    "flask_app_overrides": {"hello": {"server": {"log_format": "json"}, "site": {"access_log": "json"}}},
}
# https://prometheus.io/docs/instrumenting/exposition_formats/
SAMPLE = re.compile(r'(flaskfleet_[a-z_]+)(?:\{([a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*)\})? (-?[0-9.e+]+)')


def test_metrics_and_logs(machine):
    machine.deploy(**WATCHED)
    assert machine.host.service("flaskfleet-metrics.timer").is_running
    assert machine.host.service("flaskfleet-metrics.timer").is_enabled
    machine.output("systemctl start flaskfleet-metrics.service")  # which waits until it is done
    text = machine.output(f"cat {METRICS}")
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            samples[name, labels] = float(value)
    live = machine.live("hello")
    labels = f'app="hello",release="{live["release"]}",commit="{live["commit"]}"'
    assert samples["flaskfleet_app_release_info", labels] == 1
    assert samples["flaskfleet_app_healthy", 'app="hello"'] == samples["flaskfleet_app_healthy", 'app="hello2"'] == 1
    now = float(machine.output("date +%s"))
    assert now - 300 < samples["flaskfleet_last_run_seconds", None] <= now
    assert samples["flaskfleet_last_run_failed_apps", None] == 0
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")

    # one request id in the answer, nginx's log and gunicorn's
    command = f"curl --silent --head --header 'Host: hello.test' 'http://{machine.address}/nowhere?a=\"b\\n'"
    head = machine.output(command)
    [identity] = re.findall(r"(?i)^X-Request-ID: (\w+)", head, re.MULTILINE)
    log = f"grep -h {identity} /var/log/nginx/hello.test.access.log"
    of_nginx = json.loads(wait_for(lambda: machine.host.run(log).stdout))
    journal = f"journalctl --output=cat --unit={machine.unit('hello')} | grep {identity}"
    of_gunicorn = json.loads(wait_for(lambda: machine.host.run(journal).stdout))
    assert of_nginx["request_id"] == of_gunicorn["request_id"] == identity
    assert of_nginx["status"] == of_gunicorn["status"] == 404
    assert of_nginx["uri"] == of_gunicorn["uri"] and of_gunicorn["host"] == "hello.test"
    messages = machine.output(f"journalctl --output=cat --unit={machine.unit('hello')} _COMM=gunicorn")
    assert all(json.loads(line)["level"] for line in messages.splitlines() if line)


def test_what_differs(machine, tmp_path):
    assert f"{machine.name}: as the list says" in machine.deploy(playbook="drift", **WATCHED, flask_app_drift_fail=True)
    unit = "/etc/systemd/system/flask-hello@.service"
    machine.output(f"echo '# by hand' >> {unit}; touch -d '2026-01-02 03:04:05 UTC' {unit}")
    machine.output("systemctl stop flask-hello2@*.socket flask-hello2@*.service")
    before = machine.output(
        "find /etc /opt/flask_apps /var/lib/flaskfleet -newermt '-60 min' -printf '%p %T@\n' | sort"
    )
    report = tmp_path / "drift.json"
    variables = {**WATCHED, "flask_app_drift_file": str(report)}
    hello = {**WATCHED["flask_app_overrides"]["hello"], "version": "version2"}
    variables["flask_app_overrides"] = {"hello": hello}
    result = machine.attempt(playbook="drift", **variables, flask_app_drift_fail=True)
    assert result.returncode == 2 and "1 hosts differ from the list, 0 could not be compared" in result.stdout
    [found] = json.loads(report.read_text())
    told = {each["what"]: (each["app"], each["since"]) for each in found["differences"]}
    assert told.pop(f"{unit} was changed on the host") == ("hello", 1767323045.0)
    [moved] = [what for what in told if what.endswith("is wanted: another commit")]
    assert told.pop(moved)[0] == "hello"
    [(what, (app, since))] = told.items()
    release = machine.live("hello2")["release"]
    assert (app, what) == ("hello2", f"its release {release}: its socket was gone") and since is None
    after = machine.output("find /etc /opt/flask_apps /var/lib/flaskfleet -newermt '-60 min' -printf '%p %T@\n' | sort")
    assert after == before, "it touches nothing"
    # what the status knows without the list
    machine.deploy(playbook="status", flask_app_status_format="json", flask_app_status_file=str(report))
    status = json.loads(report.read_text())
    [hello] = [each for each in status if each["app"] == "hello"]
    assert hello["drift"] == [{"what": f"{unit} was changed", "since": 1767323045.0}]


def test_a_list_that_is_wrong_is_told_as_well(machine):
    result = machine.attempt(playbook="drift", flask_apps=[{"name": "hello"}], flask_app_drift_fail=True)
    assert result.returncode == 2
    assert f"{machine.name}: could not be compared: Plan the" in re.sub(r"\s+", " ", result.stdout)


def test_metrics_that_nobody_wants_any_more(machine):
    machine.deploy()
    assert machine.host.run("systemctl is-active flaskfleet-metrics.timer").stdout.strip() == "inactive"
    assert not machine.host.file("/etc/systemd/system/flaskfleet-metrics.timer").exists
    assert machine.property("flaskfleet-metrics.timer", "LoadState") == "not-found"
    assert machine.get("hello2.test")[0] == 200
