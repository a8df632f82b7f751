"""The one exception whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Bad input: one line that names the culprit (file, row, key) and the remedy.

    The command line prints the message without a traceback and exits with 2.
    """

    exit_status = 2


class PeerLost(UserError):
    """Another worker of the job is gone: the same command on all of them continues."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: a supervisor may try again.
