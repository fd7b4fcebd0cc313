# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How builds and activations tell at which of their steps they failed."""

from __future__ import annotations


class StepError(Exception):
    """A step failed.

    :ivar step: what was being done
    :ivar output: list of the last lines that a service or the failing command wrote, may be empty
    :ivar command: what failed: a command of the app, a request or a unit; empty when it is none of them
    :ivar status: the exit status or HTTP status; None when there is none
    """

    def __init__(self, step, message, output=(), command="", status=None):
        super().__init__(message)
        self.step = step
        self.output = list(output)
        self.command = command
        self.status = status


class BuildError(StepError):
    """A build failed."""


def of_command(step, message, error):
    """A BuildError from the CommandFailed of a command whose exit status tells nothing."""
    return BuildError(step, message if error.status is not None else f"{message}: it {error}", error.output)


class ActivationError(StepError):
    """A release did not get the traffic, or did not keep it. Steps: ``choose``, ``start``, ``probe``, ``settle`` …"""
