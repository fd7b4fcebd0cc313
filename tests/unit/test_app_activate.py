# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the activations."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.modules import app_activate


def test_an_unexpected_exception_tells_no_value(monkeypatch, capsys):
    def run(module):
        raise RuntimeError("canary")

    monkeypatch.setattr(app_activate, "run", run)
    with patch_module_args({"plan": {}, "builds": {}, "payload": ""}), pytest.raises(SystemExit):
        app_activate.main()
    output = capsys.readouterr()
    assert json.loads(output.out)["msg"] == "app_activate failed: RuntimeError"
    assert "canary" not in output.out + output.err
