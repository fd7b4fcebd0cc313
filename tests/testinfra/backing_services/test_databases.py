# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of apps: who may reach them, and what releases that change them leave behind when something fails."""

from __future__ import annotations

import contextlib
import json

from waiting import wait_for


@contextlib.contextmanager
def stopped(board):
    """The database's server is down meanwhile.

    Debian's postgresql.service is an umbrella: its clusters stop and start with it, but nobody waits for them.
    """
    board.machine.output(f"systemctl stop {board.unit} '{board.engine}@*.service'")
    try:
        yield
    finally:
        board.machine.output(f"systemctl start {board.unit}")
        wait_for(lambda: board.get("/health")[0] == 200)


def test_an_app_keeps_things_without_a_password(board):
    assert board.post("/posts", body="hello")[0] == 200
    assert "hello" in board.posts()
    user = f"flask-{board.name}"
    urls = {
        "postgresql": f"postgresql+psycopg2://{user}@/board?host=/run/postgresql",
        "mariadb": f"mysql+pymysql://{user}@localhost/mariadb_board?unix_socket=",
    }
    assert f'DATABASE_URL="{urls[board.engine]}' in board.environment()


def test_servers_listen_on_loopback_alone_unless_asked(board):
    """Each host has one kind of database for the other host, the other kind for itself."""
    listens = {"postgresql": "SHOW listen_addresses", "mariadb": "SELECT @@bind_address"}
    alone = {"postgresql": "localhost", "mariadb": "127.0.0.1"}
    if (board.engine == "postgresql") == board.machine.debian:
        assert board.sql(listens[board.engine]).stdout.strip() == alone[board.engine]
    else:
        assert board.machine.address in board.sql(listens[board.engine]).stdout


def test_an_account_has_its_own_database_alone(board):
    user = f"flask-{board.name}"
    assert board.sql("CREATE TABLE own (id int); DROP TABLE own", user).rc == 0
    if (board.engine == "postgresql") != board.machine.debian:  # where the other host has a database, too
        refused = board.sql("SELECT 1", user, "peer")
        assert refused.rc != 0 and "denied" in refused.stderr
    rights = {
        "postgresql": f"SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = '{user}'",
        "mariadb": f"SELECT Super_priv = 'Y' OR Create_priv = 'Y' FROM mysql.user WHERE User = '{user}'",
    }
    assert board.sql(rights[board.engine]).stdout.split() in (["f"], ["0"])
    assert board.sql("SELECT 1", "nobody").rc != 0, "nor has another account this one"


def test_a_cache_is_its_app_s_alone(board):
    path = f"/run/flaskfleet-cache/{board.name}"
    owner = board.machine.output(f"stat -c '%U %a' {path} {path}/cache.sock").split("\n")
    assert owner == [f"flask-{board.name} 700", f"flask-{board.name} 600"]
    assert board.machine.host.run("systemctl is-active redis redis-server").stdout.split() == ["inactive"] * 2


def test_a_release_with_a_migration_keeps_what_is_there_and_so_does_the_way_back(board):
    board.post("/posts", body="before")
    count = len(board.posts())
    with board.machine.under_load(board.name, rate=20) as report:
        board.deploy(version="version2")
    assert report["failed"] == 0 and board.get()[1] == "2" and len(board.posts()) == count
    board.post("/posts", body="after")
    board.machine.deploy(playbook="rollback", **board.variables())
    assert board.get()[1] == "1" and board.posts()[-1] == "after" and len(board.posts()) == count + 1
    # for the tests after it, whose code knows nothing of that migration
    board.sql("ALTER TABLE post DROP COLUMN likes; UPDATE alembic_version SET version_num = 'posts'")


def test_the_data_of_a_dump_come_back(board):
    """After a migration, and into a database that is empty, as on a fresh host."""
    declared = {"database": {"engine": board.engine, "backups": 2}}
    board.deploy(**declared)
    board.post("/posts", body="kept")
    board.deploy(version="version2", **declared)
    board.post("/posts", body="lost")
    back = board.machine.attempt(playbook="rollback", **board.variables(**declared))
    assert back.returncode == 0 and "which flaskfleet.deploy.restore takes back" in " ".join(back.stderr.split())
    restore = {"flask_app_restore_app": board.name, "flask_app_restore_host": board.machine.name}
    dumps = board.machine.output(f"ls /var/backups/flask_apps/{board.name}").split()
    assert len(dumps) == 2 and dumps[-1] in board.machine.deploy(playbook="restore", **restore)
    assert board.get()[1] == "1" and board.posts()[-1] == "kept"
    assert board.sql("DROP TABLE post; DROP TABLE alembic_version", f"flask-{board.name}").rc == 0
    assert board.get("/posts")[0] == 500
    board.machine.deploy(playbook="restore", **restore)
    assert board.posts()[-1] == "kept"
    board.deploy()  # as the tests after it have it


def test_a_migration_that_fails_halfway(board):
    before, posts = board.live, board.posts()
    said = board.fail(version="broken", release_commands=["flask db upgrade"])
    assert f"{board.name}: release command: `flask db upgrade` exited with status 1" in said
    assert "halfway, as asked" in said
    assert board.live == before and board.posts() == posts and board.get("/health")[0] == 200
    assert "changed=0" in board.deploy(), "and the release that serves is still the one of the list"


def test_the_database_is_down_during_a_release_command(spare):
    before = spare.live
    with stopped(spare):
        said = spare.fail(env={"TRY": "command"})
    assert (
        f"{spare.name}: release command: `flask db upgrade` exited with status" in said and "OperationalError" in said
    )
    assert spare.live == before and spare.get("/health")[0] == 200


def test_the_database_is_down_during_the_probe(spare):
    before = spare.live
    with stopped(spare):
        said = spare.fail(env={"TRY": "probe"}, release_commands=[], health_timeout=10)
    assert f"{spare.name}: probe: GET /health answered 503, expected 2xx, 3xx, for 10 s" in said
    assert spare.live == before and spare.get("/health")[0] == 200


def test_the_database_is_away_for_a_while(spare):
    """Nothing is started again for it, and nothing is lost."""
    posts, main = spare.posts(), spare.machine.property(spare.machine.unit(spare.name), "MainPID")
    with stopped(spare):
        assert spare.get("/health")[0] == 503 and spare.get()[0] == 200
    assert spare.posts() == posts
    assert spare.machine.property(spare.machine.unit(spare.name), "MainPID") == main


def test_what_differs_is_told(spare):
    if spare.engine == "postgresql":
        spare.sql(f"GRANT CONNECT ON DATABASE {spare.database} TO PUBLIC")
        difference = f"PostgreSQL: the database {spare.database} is open to other accounts"
    else:
        spare.sql(f"DROP USER 'flask-{spare.name}'@localhost")
        difference = f"MariaDB: the account flask-{spare.name} is missing"
    cache = f"flaskfleet-cache-{spare.name}.service"
    spare.machine.output(f"systemctl stop {cache}")
    said = spare.machine.deploy(playbook="drift", **spare.variables())
    assert difference in said and f"{cache} does not run" in said
    spare.deploy("--tags", "services")
    assert f"{spare.machine.name}: as the list says" in spare.machine.deploy(playbook="drift", **spare.variables())


def test_what_somebody_stopped_or_dropped_is_put_right(spare):
    spare.machine.output(f"systemctl disable --now {spare.unit}; systemctl stop flaskfleet-cache-{spare.name}")
    spare.deploy("--tags", "services")
    assert spare.get("/health")[0] == 200
    states = spare.machine.output(f"systemctl is-active {spare.unit} flaskfleet-cache-{spare.name}")
    assert states.split() == ["active"] * 2


def test_a_job_is_finished_across_a_deployment(queued):
    # a worker of rq that has lost its queue, as in the tests before, waits longer and longer before it asks again
    queued.machine.output("systemctl restart 'flask-board.worker@*'")
    queued.post("/posts", body="to be exported")
    queued.post("/exports/long", seconds="8")
    exports = "/var/lib/flask_apps/board/exports"
    queued.deploy(version="version2")
    assert queued.get()[1] == "2"
    found = wait_for(lambda: queued.machine.host.run(f"cat {exports}/long").stdout)
    assert json.loads(found)["version"] == "1" and "to be exported" in json.loads(found)["posts"]
    queued.post("/exports/short", seconds="0")
    found = wait_for(lambda: queued.machine.host.run(f"cat {exports}/short").stdout)
    assert json.loads(found)["version"] == "2"
    queued.post("/uploads/kept", body="x")
    queued.deploy()
    assert queued.machine.host.file("/var/lib/flask_apps/board/uploads/kept").exists
    queued.sql("ALTER TABLE post DROP COLUMN likes; UPDATE alembic_version SET version_num = 'posts'")
    queued.machine.output("systemctl start flask-board.tidy.service")
    assert "posts" in queued.machine.output("journalctl -t flask-board.tidy --output=cat --lines=1")
