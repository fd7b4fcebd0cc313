# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy through its runtime socket: which servers get requests, and what of that outlives a reload.

One file with two uses: modules import it, and the role load_balancer installs it on balancers, where systemd has it
save the servers' states before each reload (`python3 balancer.py save ...`). Standard library only.

States are those of the runtime API (https://docs.haproxy.org/2.8/management.html#9.3, `set server`). What a rollout has
taken out of the traffic is remembered in a file beside, with the reason, so that it never gives back what somebody else
has taken out:

    drain   the rollout changes its nginx or its packages
    away    could not be reached, so it may have old releases
    new     was not known to the balancer before
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import http.client
import json
import os
import re
import secrets
import socket
import sys
import time

SOCKETS = ("/run/haproxy/admin.sock", "/var/lib/haproxy/stats")  # of Debian's packages, and EL's
STATES = "/var/lib/haproxy/server-state"
CONFIGURATION = "/etc/haproxy/haproxy.cfg"
MARKS = "/var/lib/flaskfleet/balancer.json"
# Who asks from the balancer itself may name the server that is to answer, and reads there which one did.
PIN = "X-Flaskfleet-Server"

# Bits of srv_admin_state, as the runtime API sets them (enum srv_admin of HAProxy's include/haproxy/server-t.h).
_MAINTENANCE = 0x01
_DRAIN = 0x08
# What one line of the state file says behind the names, of a server that gets no requests; see `_line`.
_RUNNING = "2"
# How the statuses of checks begin that failed; a server may be running with less of them than it takes to be down.
_FAILED = ("L4C", "L4T", "L6", "L7S", "L7T")


class BalancerError(Exception):
    """What the user has to mend."""


class Server:
    """A server of a backend.

    :ivar admin: "ready", "drain" or "maint"
    :ivar up: whether its checks pass
    :ivar sessions: how many it has now
    :ivar check: what its last check said, in HAProxy's words
    """

    def __init__(self, backend, name, admin, up, sessions=0, check=""):
        self.backend = backend
        self.name = name
        self.admin = admin
        self.up = up
        self.sessions = sessions
        self.check = check


def server_name(host):
    """An inventory's name of a host as HAProxy takes the names of servers."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", host)


class Runtime:
    """The runtime API behind a socket (path); that of the distribution's package when none is given."""

    def __init__(self, path=None):
        self.path = path or next(filter(os.path.exists, SOCKETS), SOCKETS[0])

    def ask(self, command):
        """What it answers to a command.

        :raises BalancerError: HAProxy does not run
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(self.path)
                connection.sendall(f"{command}\n".encode())
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            raise BalancerError(f"HAProxy does not answer at {self.path}: {error.strerror or error}") from error
        return answer.decode(errors="replace")

    def servers(self):
        """All servers (list of Server)."""
        found = {(each["be_name"], each["srv_name"]): each for each in parse_states(self.ask("show servers state"))}
        servers = []
        for row in csv.DictReader(self.ask("show stat -1 4 -1").lstrip("# ").splitlines()):
            state = found.get((row["pxname"], row["svname"]))
            if state:
                servers.append(
                    Server(
                        row["pxname"],
                        row["svname"],
                        _admin(state),
                        state["srv_op_state"] == _RUNNING and not row["check_status"].startswith(_FAILED),
                        int(row["scur"] or 0),
                        " ".join(filter(None, (row["check_status"], row.get("last_chk", "")))),
                    )
                )
        return servers

    def set(self, server, state):
        """Set what a server is to be: "ready", "drain" or "maint".

        :raises BalancerError: HAProxy refuses
        """
        answer = self.ask(f"set server {server.backend}/{server.name} state {state}").strip()
        if answer:
            raise BalancerError(f"{server.backend}/{server.name}: HAProxy will not set it {state}: {answer}")

    def process(self):
        """The number of the process that serves, which a reload changes."""
        found = re.search(r"^Pid: ([0-9]+)$", self.ask("show info"), re.MULTILINE)
        return int(found[1]) if found else 0


def _admin(state):
    bits = int(state["srv_admin_state"])
    # of a configuration's `disabled`, or a server that another one tracks, likewise
    return "maint" if bits & 0x27 else "drain" if bits & 0x18 else "ready"


def parse_states(text):
    """The lines of `show servers state`, or of a state file, each a dict of its fields."""
    fields, found = [], []
    for line in text.splitlines():
        if line.startswith("# be_id"):
            fields = line[2:].split()
        elif fields and line.strip():
            found.append(dict(zip(fields, line.split())))
    return found


def configured(text):
    """The backends of a configuration of the role: {name: {"servers": {name: (address, port, whether TLS)}, "path",
    "statuses"}}. The last two are what its checks ask for, and what they expect.
    """
    backends: dict = {}
    current = None
    for line in text.splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if not line[0].isspace():
            current = {"servers": {}, "path": "/", "statuses": ""} if words[0] == "backend" else None
            if current is not None:
                backends[words[1]] = current
        elif current is not None and words[0] == "server":
            address, _colon, port = words[2].rpartition(":")
            current["servers"][words[1]] = (address.strip("[]"), port, "ssl" in words)
        elif current is not None and words[:2] == ["http-check", "send"]:
            current["path"] = words[words.index("uri") + 1]
        elif current is not None and words[:3] == ["http-check", "expect", "status"]:
            current["statuses"] = words[3]
    return backends


# --- What outlives a reload ------------------------------------------------------------------------------------------


def state_file(states, configuration, new):
    """What the next processes of HAProxy read: the servers that get no requests now, and those that are new.

    Nothing is said of the others: a state's address, port and TLS would go before those of the configuration.

    :param states: what `show servers state` says, empty when HAProxy does not run
    :param configuration: what the next processes will be configured by
    :param new: "maint" for servers that are not known yet, or "ready"
    :returns: (text, names of servers that are new and start in maintenance)
    """
    known = parse_states(states)
    before = {(each["be_name"], each["srv_name"]): each for each in known}
    elsewhere = {}
    for each in known:
        elsewhere.setdefault(each["srv_name"], []).append(each)
    lines, held = [], []
    for backend, parts in configured(configuration).items():
        for name, place in parts["servers"].items():
            state = before.get((backend, name))
            if state is not None:
                if _admin(state) != "ready" or state["srv_op_state"] == "0":
                    admin = int(state["srv_admin_state"]) & (_MAINTENANCE | _DRAIN)
                    lines.append(_line(backend, name, place, state["srv_op_state"], admin))
                continue
            # A host that is drained is so behind a new domain, too.
            others = {_admin(each) for each in elsewhere.get(name, ())}
            if len(others) == 1 and others != {"ready"}:
                lines.append(_line(backend, name, place, "0", _MAINTENANCE if others == {"maint"} else _DRAIN))
            elif known and name not in elsewhere and new == "maint":
                lines.append(_line(backend, name, place, "0", _MAINTENANCE))
                held.append(name)
    heading = (
        "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
        "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
        "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
        "srv_agent_addr srv_agent_port"
    )
    return "".join(f"{line}\n" for line in ["1", heading, *lines]), sorted(set(held))


def _line(backend, name, place, operation, admin):
    address, port, tls = place
    # as of a server whose last check failed, so that two good ones have to follow; unless it was running
    result, health = ("3", "4") if operation == _RUNNING else ("2", "0")
    fields = [
        "1",
        backend,
        "1",
        name,
        address,
        operation,
        str(admin),
        "1",
        "1",
        "1",
        "1",
        result,
        health,
        "6",
        "0",
        "0",
    ]
    return " ".join([*fields, "0", "-", port, "-", str(int(tls)), "0", "-", "-", "0"])


def save(runtime, new="maint", states=STATES, configuration=CONFIGURATION, marks=MARKS):
    """Write the state file for the next reload or restart, and mark what is held back."""
    try:
        now = runtime.ask("show servers state")
    except BalancerError:
        return  # what was saved last still holds
    with open(configuration, encoding="utf-8") as stream:
        text, held = state_file(now, stream.read(), new)
    replace(states, text)
    if held:
        remembered = read_marks(marks)
        write_marks(marks, {**remembered, **{name: "new" for name in held}})


def replace(path, text):
    """Write a file that root alone reads, at once or not at all."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def locked(path=MARKS):
    """Hold off others that set states, whose marks would get lost."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def read_marks(path=MARKS):
    """{name of a server: why the rollout has taken it out of the traffic}."""
    try:
        with open(path, encoding="utf-8") as stream:
            marks = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return marks if isinstance(marks, dict) else {}


def write_marks(path, marks):
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    replace(path, json.dumps(marks, indent=1, sort_keys=True) + "\n")


# --- What a rollout and people do ------------------------------------------------------------------------------------


class Change:
    """Takes hosts out of the traffic and gives them back, all their servers alike.

    :param runtime: a Runtime
    :param names: names of the servers, see `server_name`
    :param check_mode: whether to predict alone
    :param timeout: seconds to wait for the end of sessions, or for good checks
    :param sticky: whether browsers keep to a host
    """

    def __init__(
        self,
        runtime,
        names,
        check_mode=False,
        timeout=60,
        marks=MARKS,
        clock=time.monotonic,
        pause=time.sleep,
        sticky=False,
    ):
        self.runtime = runtime
        self.names = list(names)
        self.check_mode = check_mode
        self.timeout = timeout
        self.path = marks
        self.marks = read_marks(marks)
        self.clock = clock
        self.pause = pause
        self.sticky = sticky
        self.done = []
        self.left = set()
        self.kept = []

    def own(self, servers=None):
        return [each for each in (servers or self.runtime.servers()) if each.name in self.names]

    def set(self, state):
        """Set what people ask for. What a rollout had in mind is forgotten."""
        self._set(self.own(), state)
        self._mark({name: None for name in self.names})
        if state == "drain":
            self._wait_for_sessions()

    def take_out(self, reason):
        """Take hosts out of the traffic for a rollout. reason: "drain" waits for the end of their requests, "away".

        What somebody else has taken out stays as it is. A backend keeps its last server.
        """
        servers = self.runtime.servers()
        own = self.own(servers)
        self._leave(own)
        # A browser that keeps to a host goes on to get it while that drains. Maintenance lets answers end as well.
        state = "maint" if reason == "away" or self.sticky else "drain"
        wanted = []
        for each in own:
            others = [one for one in servers if one.backend == each.backend and one.name not in self.names]
            if each.name in self.left or (each.name in self.marks and each.admin != "ready"):
                continue
            if reason == "drain" and not any(one.up and one.admin == "ready" for one in others):
                self.kept.append(f"{each.backend}/{each.name}")
                continue
            wanted.append(each)
        self._set(wanted, state)
        self._mark({each.name: self.marks.get(each.name, reason) for each in wanted})
        if reason == "drain":
            self._wait_for_sessions({each.backend for each in wanted})

    def give_back(self, request, reasons=None):
        """Have hosts get requests again which a rollout has taken out, when each of their servers answers.

        request: what asks a server for its health through the balancer, returns what is wrong. reasons: only those that
        were taken out for them; all when None.

        :raises BalancerError: one does not; nothing was given back then
        """
        own = self.own()
        marked = {
            name for name in self.names if name in self.marks and (reasons is None or self.marks[name] in reasons)
        }
        self._leave(own)
        if reasons is not None:
            own = [each for each in own if each.name in marked]
        own = [each for each in own if each.name not in self.left or each.admin == "drain"]
        # without its checks, which a maintenance stops, nobody knows how it is
        self._set([each for each in own if each.admin == "maint"], "drain")
        if not self.check_mode:
            self._wait_for_health({(each.backend, each.name) for each in own}, request)
        self._set([each for each in self.own() if each.name in marked], "ready")
        self._mark({name: None for name in marked})

    def _leave(self, servers):
        """Note what somebody else has taken out."""
        self.left = {each.name for each in servers if each.admin != "ready" and each.name not in self.marks}

    def _set(self, servers, state):
        for each in servers:
            if each.admin != state:
                if not self.check_mode:
                    self.runtime.set(each, state)
                self.done.append({"backend": each.backend, "server": each.name, "from": each.admin, "to": state})

    def _mark(self, changes):
        marks = {**self.marks, **changes}
        marks = {name: reason for name, reason in marks.items() if reason}
        if marks != self.marks and not self.check_mode:
            write_marks(self.path, marks)
        self.marks = marks

    def _wait_for_sessions(self, backends=None):
        """Wait until nobody is connected any more. What remains after the limit is told, and goes on."""
        deadline = self.clock() + self.timeout
        while not self.check_mode and self.sessions(backends) and self.clock() < deadline:
            self.pause(0.2)

    def sessions(self, backends=None):
        """How many sessions the hosts have now."""
        return sum(each.sessions for each in self.own() if backends is None or each.backend in backends)

    def _wait_for_health(self, wanted, request):
        deadline = self.clock() + self.timeout
        healthy = set()
        while True:
            problems = []
            for each in self.own():
                place = (each.backend, each.name)
                if place not in wanted or place in healthy:
                    continue
                problem = request(each) if each.up else f"its check says {each.check or 'nothing yet'}"
                if problem:
                    problems.append(f"{each.backend} on {each.name}: {problem}")
                else:
                    healthy.add(place)
            if not problems:
                return
            if self.clock() > deadline:
                raise BalancerError("\n".join([f"not healthy at the balancer after {self.timeout} s:", *problems]))
            self.pause(0.3)


def is_sticky(path=CONFIGURATION):
    """Whether the configuration has browsers keep to a host."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as stream:
        return re.search(r"^\s+cookie ", stream.read(), re.MULTILINE) is not None
    return False


def asking(path=CONFIGURATION, address="127.0.0.1", port=80):
    """What asks a server for its health path through the balancer. path: of its configuration."""
    with open(path, encoding="utf-8") as stream:
        backends = configured(stream.read())

    def request(server):
        backend = backends.get(server.backend)
        if backend is None:
            return "is not in the configuration"
        connection = http.client.HTTPConnection(address, port, timeout=10)
        try:
            connection.request("GET", backend["path"], headers={"Host": server.backend, PIN: server.name})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"GET {backend['path']} through the balancer: {type(error).__name__}"
        finally:
            connection.close()
        if answer.headers.get(PIN) != server.name:
            return f"GET {backend['path']} through the balancer was not answered by it"
        if not _expected(answer.status, backend["statuses"]):
            return f"GET {backend['path']} through the balancer: status {answer.status}"
        return ""

    return request


def _expected(status, ranges):
    for each in filter(None, ranges.split(",")):
        low, _hyphen, high = each.partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False


def reload(runtime, command, timeout, clock=time.monotonic, pause=time.sleep):
    """Have HAProxy reload and wait until its new process serves.

    :param command: what reloads it; is called
    :raises BalancerError: it goes on with its old configuration
    """
    before = 0
    with contextlib.suppress(BalancerError):  # it does not run yet
        before = runtime.process()
    command()
    deadline = clock() + timeout
    while clock() < deadline:
        with contextlib.suppress(BalancerError):
            if runtime.process() not in (0, before):
                return
        pause(0.1)
    raise BalancerError(
        f"HAProxy goes on with its old configuration {timeout} s after its reload; its journal says why"
    )


def main(arguments):
    """`save SOCKET maint|ready`: what systemd calls before a reload and a stop."""
    save(Runtime(arguments[1]), arguments[2])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
