# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of a database's server is full: a release that needs it fails, what serves goes on, and nothing is lost."""

from __future__ import annotations

import contextlib

from waiting import wait_for

DISK = "/mnt/database-disk"
ROOM = 24  # MiB that are left for the server
FILL = (
    'python -c "from app import Post, app, db; app.app_context().push(); '
    "db.session.execute(db.insert(Post), [{'body': 'x' * 140}] * 250000); db.session.commit()\""
)


@contextlib.contextmanager
def small_disk(board):
    """The server's data lie on a disk of their own, with little room; yields what gives it more."""
    run, data = board.machine.output, "/var/lib/mysql"
    stop = f"systemctl stop {board.unit} 'postgresql@*'"  # Debian's unit is there for those of its clusters
    if board.engine == "postgresql":
        data = "/var/lib/postgresql" if board.machine.debian else "/var/lib/pgsql"
    run(f"{stop}; mkdir -p {DISK}")
    size = int(run(f"du -sm {data}").split()[0]) + ROOM
    run(f"mount -t tmpfs -o size={size}m tmpfs {DISK} && cp -a {data}/. {DISK} && chown --reference={data} {DISK}")
    run(f"chmod --reference={data} {DISK}; mount --bind {DISK} {data} && systemctl start {board.unit}")
    try:
        yield lambda: run(f"mount -o remount,size={size + 300}m {DISK}; {stop}; systemctl start {board.unit}")
    finally:
        run(f"{stop}; umount {data} && find {data} -mindepth 1 -delete && cp -a {DISK}/. {data}")
        run(f"umount {DISK}; rmdir {DISK}; systemctl start {board.unit}")
        wait_for(lambda: board.get("/health")[0] == 200)


def test_the_disk_of_the_database_is_full(spare):
    before, posts = spare.live, spare.posts()
    with small_disk(spare) as enlarge:
        said = spare.fail(env={"TRY": "full"}, release_commands=[FILL])
        assert f"{spare.name}: release command: `python -c" in said and "OperationalError" in said, said
        assert spare.live == before and spare.get()[0] == 200
        enlarge()
        wait_for(lambda: spare.get("/health")[0] == 200)
        assert spare.posts() == posts  # the release of before
        spare.deploy(env={"TRY": "full"}, release_commands=["true"])
        assert spare.live != before and spare.posts() == posts
    spare.deploy()
    assert spare.posts() == posts
