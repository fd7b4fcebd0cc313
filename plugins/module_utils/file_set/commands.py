# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the host: commands that test and apply files, whose output tells no secret."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

from ..payload import scrub
from .wanted import FileSetError

COMMAND_TIMEOUT = 300  # seconds
OUTPUT_LIMIT = 4000  # characters of a failed command's output, the last ones


def execute(command, consequence, hidden, **details):
    """Run a command (list of str, may be empty).

    :param consequence: what its failure means for the files
    :param hidden: texts that are masked in its output
    :raises FileSetError: it failed; with the end of its output, and details (cmd, rc and those given)
    """
    if not command:
        return
    environment = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin")
    # A file instead of a pipe: a daemon that the command leaves behind may keep its output open.
    with tempfile.TemporaryFile() as stream:
        try:
            code = subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule here, and a time limit
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                timeout=COMMAND_TIMEOUT,
                check=False,
            ).returncode
            outcome = f"failed with {code}"
        except OSError as error:
            code, outcome = 127, f"cannot be run ({error.strerror})"
        except subprocess.TimeoutExpired:
            code, outcome = 124, f"took longer than {COMMAND_TIMEOUT} s"
        stream.seek(0)
        output = mask(stream.read().decode(errors="replace"), hidden)[-OUTPUT_LIMIT:].strip()
    if code:
        text = f"{' '.join(command)}: {outcome}; {consequence}."
        raise FileSetError(f"{text}\n{output}" if output else text, cmd=command, rc=code, **details)


def mask(text, hidden):
    """Replace lines, assigned values and words of the texts ``hidden`` (6 characters and longer) in ``text``."""
    parts = set()
    for line in "".join(f"{content}\n" for content in hidden).splitlines():
        parts.update([line.strip(), line.partition("=")[2].strip("'\" "), *re.split(r'[\s\'"=;,:@]+', line)])
    return scrub(text, [part for part in parts if len(part) >= 6])
