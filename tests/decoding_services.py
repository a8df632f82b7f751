"""`tfavmae data serve` in processes of their own, as on other machines."""

import contextlib
import signal
import socket
import subprocess
import sys


@contextlib.contextmanager
def serving(num_joined=0):
    """Address of a dispatcher with its own worker, or with some that join it."""
    port, *ports = (free_port() for _ in range(num_joined + 1))
    workers = [f"localhost:{p}" for p in ports]
    with contextlib.ExitStack() as stack:
        joined = [
            stack.enter_context(
                _serve("--dispatcher", f"localhost:{port}", "--port", p)
            )
            for p in ports
        ]
        options = ["--workers", *workers] if workers else []
        dispatcher = stack.enter_context(_serve("--port", port, *options))
        lines = [dispatcher.stdout.readline() for _ in range(2 if workers else 1)]
        assert all(worker in lines[0] for worker in workers)
        yield lines[-1].partition("[")[2].partition("]")[0]
        for process in (dispatcher, *joined):
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130


@contextlib.contextmanager
def _serve(*options):
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tfavmae", "data", "serve", "--trust-network"),
            *("--host", "localhost", *(str(x) for x in options)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # So that Ctrl-C ends it also where the test run ignores that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]
