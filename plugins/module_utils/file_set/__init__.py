# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a set of files true on a host, all or nothing, and remember which of them are ours.

On the controller, ``reading`` judges what a task says and ``wanted`` packs it. On the host, ``running`` has
``comparing`` find what differs, ``writing`` write that and ``commands`` test and apply it. No exception raised here
carries the content of a file in its text.
"""
