"""What an app can try when somebody has taken it over. Run by hand it prints what came of each attempt, as JSON.

Only the standard library: it runs in a build, before anything is installed, and outside any sandbox as a comparison.
"""

import ctypes
import glob
import json
import mmap
import os
import socket
import sys
import tempfile

HERE = os.path.abspath(__file__)
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x00020000, 0x40000000
PTRACE_SEIZE = 0x4206  # unlike PTRACE_ATTACH, it does not stop whom it traces
ADDR_NO_RANDOMIZE = 0x0040000
ATTEMPTS = {}


def attempt(words):
    def register(function):
        ATTEMPTS[words] = function
        return function

    return register


def call(name, *arguments):
    """Call a function of the C library; raises OSError when it fails."""
    if getattr(LIBC, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(pattern):
    """Read files; raises OSError when there is none, or none can be read."""
    paths = glob.glob(pattern) or [pattern]
    for path in paths:
        with open(path, "rb") as stream:
            stream.read(1)


def write(path):
    with open(path, "ab"):
        pass
    if not path.startswith(os.path.dirname(HERE)):
        os.unlink(path)


def processes():
    """Numbers of the processes of other accounts that can be seen."""
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [number for number in found if os.stat(f"/proc/{number}").st_uid != os.getuid()]


def in_child(function):
    """Call it in a process of its own, which it may change for good; raises OSError as it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except OSError as error:
            os.write(writer, str(error).encode())
            os._exit(1)
        except BaseException:
            os._exit(2)
    os.close(writer)
    with os.fdopen(reader) as stream:
        problem = stream.read()
    if os.waitpid(child, 0)[1] != 0:
        raise OSError(problem or "it died")


attempt("read another app's secrets")(lambda: read("/opt/flask_apps/victim/current/environment"))
attempt("read another app's code")(lambda: read("/opt/flask_apps/victim/current/build/app.py"))
attempt("read another app's data")(lambda: read("/var/lib/flask_apps/victim/diary"))
attempt("write into another app's data")(lambda: write("/var/lib/flask_apps/victim/burglar"))
attempt("read another app's mirror")(lambda: read("/opt/flask_apps/victim/repo.git/HEAD"))
attempt("read the secrets file of an app, its own included")(lambda: read("/opt/flask_apps/*/releases/*/environment"))
attempt("write into its own code")(lambda: write(HERE))
attempt("write beside its own code")(lambda: write(os.path.join(os.path.dirname(HERE), "burglar")))
attempt("read a home")(lambda: read("/home/somebody/diary"))
attempt("read root's home")(lambda: read("/root/diary"))
attempt("read private keys of nginx")(lambda: read("/etc/nginx/certificates/*"))
attempt("write into /etc")(lambda: write("/etc/burglar"))
attempt("write into /usr")(lambda: write("/usr/local/bin/burglar"))
attempt("write into /run")(lambda: write("/run/burglar"))
attempt("poison the cache of packages")(lambda: write("/var/cache/flask_apps/.wheels/poison"))
attempt("open a raw socket")(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close())
attempt("open a packet socket")(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
attempt("talk to the kernel's network")(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())
attempt("make a user namespace")(lambda: in_child(lambda: call("unshare", CLONE_NEWUSER)))
attempt("make a mount namespace")(lambda: in_child(lambda: call("unshare", CLONE_NEWNS)))
attempt("make a network namespace")(lambda: in_child(lambda: call("unshare", CLONE_NEWNET)))
attempt("become root")(lambda: in_child(lambda: os.setuid(0)))
attempt("change the host's name")(lambda: socket.sethostname(socket.gethostname()))
attempt("run with the priority of real time")(
    lambda: in_child(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
)
attempt("change its own priority")(lambda: in_child(lambda: os.nice(1)))
attempt("make memory that is written and run")(
    lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
)
attempt("have addresses no longer chosen at random")(lambda: in_child(lambda: call("personality", ADDR_NO_RANDOMIZE)))
attempt("signal another account's process")(lambda: os.kill(1, 0))
attempt("change kernel tunables")(lambda: write_text("/proc/sys/kernel/hostname", socket.gethostname()))
attempt("read the kernel's log")(lambda: read("/dev/kmsg"))
attempt("read the journal of the host")(lambda: read("/*/log/journal/*/system.journal"))


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


@attempt("list the other apps")
def list_apps():
    seen = {name for root in ("/opt", "/var/lib", "/run") for name in os.listdir(f"{root}/flask_apps")}
    if not seen - {*HERE.split("/")}:
        raise PermissionError("sees itself alone")


@attempt("see another account's processes")
def see_processes():
    if not processes():
        raise PermissionError("sees its own alone")


@attempt("trace another account's process")
def trace():
    problem = PermissionError("sees none")
    for number in processes():
        try:
            in_child(lambda number=number: call("ptrace", PTRACE_SEIZE, number, None, None))
            return
        except OSError as error:
            problem = error
    raise problem


@attempt("mount a file system")
def mount():
    folder = tempfile.mkdtemp()
    in_child(lambda: (call("unshare", CLONE_NEWNS), call("mount", b"none", folder.encode(), b"tmpfs", 0, None)))


@attempt("make a device")
def make_device():
    path = os.path.join(tempfile.mkdtemp(), "null")
    os.mknod(path, 0o20666, os.makedev(1, 3))


@attempt("make a program that runs as its owner")
def make_setuid():
    with tempfile.NamedTemporaryFile() as stream:
        os.chmod(stream.name, 0o4755)


@attempt("read what others left in /tmp")
def shared_tmp():
    read("/tmp/left-by-others")


@attempt("read what others left in /var/tmp")
def shared_var_tmp():
    read("/var/tmp/left-by-others")


@attempt("read what others left in /dev/shm")
def shared_memory():
    read("/dev/shm/left-by-others")


def connect(pattern):
    for path in glob.glob(pattern) or [pattern]:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)


attempt("connect to another app's socket")(lambda: connect("/opt/flask_apps/victim/current/web.sock"))
attempt("connect to another app's socket by its path")(lambda: connect("/run/flask_apps/victim/*.sock"))
attempt("connect to D-Bus")(lambda: connect("/run/dbus/system_bus_socket"))
attempt("connect to systemd")(lambda: connect("/run/systemd/private"))


@attempt("reach another machine")
def network():
    socket.create_connection((os.environ["GATEWAY"], 9418), timeout=5).close()  # which serves the tests' repositories


def results():
    """{attempt: "done", or why not}"""
    outcome = {}
    for words, function in ATTEMPTS.items():
        try:
            function()
            outcome[words] = "done"
        except Exception as error:  # whatever keeps it out
            outcome[words] = f"{type(error).__name__}: {error}"
    return outcome


if __name__ == "__main__":
    json.dump(results(), sys.stdout)
