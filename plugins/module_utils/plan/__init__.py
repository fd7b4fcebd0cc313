# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: `flask_apps` judged, completed and turned into paths, names and sockets. On the controller only."""

from __future__ import annotations

from .derive import host_label, make_plan
from .inventory import Inventory
from .reading import (
    PlanError,
    balancer_variables,
    collect_certificates,
    collect_notifications,
    collect_secrets,
)
from .schema import role_variables
from .variables import misspelt_variables, plain_variables

__all__ = [
    "Inventory",
    "PlanError",
    "balancer_variables",
    "collect_certificates",
    "collect_notifications",
    "collect_secrets",
    "host_label",
    "make_plan",
    "misspelt_variables",
    "plain_variables",
    "role_variables",
]
