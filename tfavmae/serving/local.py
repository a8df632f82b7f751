"""`tfavmae serve` as a process that lives as long as a block of code."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tfavmae.errors import UserError

_READY = re.compile(r"Serving (?P<models>.*) at (?P<url>http://\S+); ")
_END_SECONDS = 300  # longer than the server gives its last requests


@dataclasses.dataclass(frozen=True)
class LocalServer:
    """A running server.

    Attributes:
        url: its address.
        models: names of the models.
        process: of the server.
    """

    url: str
    models: tuple[str, ...]
    process: subprocess.Popen


@contextlib.contextmanager
def local_server(directory: str | os.PathLike, *options: str) -> Iterator[LocalServer]:
    """Runs `tfavmae serve` on a free port of this machine, until the block ends.

    Args:
        directory: see `versions.find_models`.
        *options: further words of the command.

    Yields:
        The server, as soon as it answers.

    Raises:
        UserError: it does not start, or ends with an error; with what it wrote.
    """
    command = [sys.executable, "-m", "tfavmae", "serve", str(directory)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None  # it is a pipe
        try:
            match = _READY.match(process.stdout.readline())
            if match:
                names = re.sub(r" \(version \d+\)", "", match["models"])
                yield LocalServer(match["url"], tuple(names.split(", ")), process)
        finally:
            process.terminate()
            try:
                status = process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            process.stdout.close()
        if status or not match:
            errors.seek(0)
            last = errors.read().strip().rpartition("\n")[2]
            raise UserError(
                f"{directory}: the server ended with status {status}"
                f"{': ' if last else ''}{last}"
            )
