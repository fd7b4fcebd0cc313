# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a test host: make an index of packages, the folder ``simple``, of the wheels in a folder, and of hostile ones.

hostile_index.py FOLDER. Flask gets a module more, under its own name and version; starter has a .pth file, which every
Python runs that starts in an environment with it; climber and datum write elsewhere. Standard library only.
"""

import re
import shutil
import sys
import zipfile
from pathlib import Path

UP = "../" * 12
POISON = "var/cache/flask_apps/.wheels/poison"
HOSTILE = {
    "starter": {"starter.pth": "import os; open('/tmp/started-by-%d' % os.getuid(), 'w')\n"},
    "climber": {f"{UP}{POISON}": "", f"{UP}tmp/poison": ""},
    "datum": {f"datum-1.0.data/data/{UP}{POISON}": ""},
}


def make(folder, name, files):
    """A wheel."""
    folder.mkdir()
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {f"{name}.py": "", **files, f"{info}/METADATA": metadata, f"{info}/WHEEL": kind}
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def main():
    top = Path(sys.argv[1])
    index = top / "simple"
    for path in top.glob("*.whl"):
        folder = index / re.sub("[-_.]+", "-", path.name.split("-")[0]).lower()
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    [flask] = index.glob("flask/*.whl")
    with zipfile.ZipFile(flask, "a") as wheel:
        wheel.writestr("flask/poisoned.py", "")
    for name, files in HOSTILE.items():
        make(index / name, name, files)


if __name__ == "__main__":
    main()
