# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""terminal.py PICTURE: draw the text of the standard input as a terminal, in SVG. "$ " begins a command."""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

LINE, CHARACTER, MARGIN = 18, 7.8, 16
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def picture(text):
    """The SVG of a text. Fonts differ, so each line is stretched to the width that it has here."""
    lines = [CONTROL.sub("", line).expandtabs().rstrip() for line in text.splitlines()]
    width = max(map(len, lines), default=0) * CHARACTER + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    drawn = [
        f'<text x="{MARGIN}" y="{MARGIN + number * LINE + 13}" textLength="{len(line) * CHARACTER:.1f}"'
        f' class="{"command" if line.startswith("$ ") else "output"}">{escape(line)}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
            "<style>text { font: 13px monospace; white-space: pre; fill: #d8dee9 } .command { fill: #a3d977 }</style>",
            '<rect width="100%" height="100%" rx="8" fill="#1f2430"/>',
            *drawn,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(sys.stdin.read()), encoding="utf-8")
