"""The console script crew-worker: says that it is here, and waits to be told to end."""

import signal

from . import create_app, note


def main():
    note(create_app(), "worker")
    signal.sigwait([signal.SIGTERM])


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
