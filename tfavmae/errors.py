"""Errors whose message is meant for the person at the keyboard."""

import difflib
import reprlib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: one line that names the culprit (file, row, key) and the remedy.

    The command line prints the message without a traceback and exits with 2.
    """

    exit_status = 2


class InputWarning(UserWarning):
    """Input that works, though hardly as intended: one line as of a `UserError`.

    The command line prints the line alone.
    """


class PeerLost(UserError):
    """Another worker of the job is gone: the same command on all of them continues."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: a supervisor may try again.


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of an "unknown name" message: the nearest name, or all names.

    >>> did_you_mean("cavmae", ["cav_mae", "mavil"])
    "did you mean 'cav_mae'?"
    >>> did_you_mean("x", ["cav_mae", "mavil"])
    'known: cav_mae, mavil.'
    """
    known = [str(other) for other in known]
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known: {', '.join(known)}." if known else "none are known."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxlist = self.maxtuple = self.maxdict = 6
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out more than 4300 digits.
        if x.bit_length() > 10_000:
            return f"a number of {x.bit_length()} bits"
        return super().repr_int(x, level)


def shown(value: object) -> str:
    """`repr(value)`, cut to a length that fits into a message.

    >>> shown("a" * 1000)[-5:]
    "aaaa'"
    """
    text = _Short().repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def on_one_line(text: str) -> str:
    """Text with control characters spelt out.

    Names in files and of files come from others, and a terminal obeys such characters.

    >>> on_one_line("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
