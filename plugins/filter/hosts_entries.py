# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.errors import AnsibleTemplatePluginError

from ..module_utils import hosts_entries as logic


def hosts_entries(apps, hosts, host_names=True, balancers=None):
    """See RETURN. Raises AnsibleTemplatePluginError with all problems."""
    try:
        return logic.hosts_entries(apps, hosts, host_names, balancers)
    except logic.EntriesError as error:
        raise AnsibleTemplatePluginError(str(error)) from None


class FilterModule:
    """One filter, named as the file."""

    def filters(self):
        return {"hosts_entries": hosts_entries}
