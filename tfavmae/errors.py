"""The one exception whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Bad input: one line that names the culprit (file, row, key) and the remedy.

    The command line prints the message without a traceback and exits with 2.
    """
