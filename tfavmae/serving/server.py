"""The server process: its socket, its signals, its end.

It stops as a server behind a load balancer should: at SIGTERM or Ctrl-C it takes no new
connection, answers every request whose headers it has read, and ends.
"""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from tfavmae.errors import UserError
from tfavmae.serving.app import Service
from tfavmae.serving.limits import patient_protocol


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own, which would end the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: name or address of the interface.
        port: 0 for any that is free.

    Raises:
        UserError: the address is not one of this machine, or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # A backlog as long as the bursts that the limit of requests then answers.
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}:{port} (--host, --port): {reason}"
        ) from error


def run(
    service: Service,
    listening: socket.socket,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; returns when the last request is answered.

    Args:
        service: answers.
        listening: from `listen`.
        on_ready: called when requests are answered.
    """
    asyncio.run(_serve(service, listening, on_ready))


async def _serve(
    service: Service, listening: socket.socket, on_ready: Callable[[], None]
) -> None:
    limits = service.limits
    config = uvicorn.Config(
        service.app(),
        http=patient_protocol(limits.header_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2**16,
        timeout_keep_alive=5,
        # Every accepted request ends by its own time limit before this one.
        timeout_graceful_shutdown=int(limits.body_seconds + limits.request_seconds) + 5,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            # Else a collection walks all of TensorFlow every few seconds, and no
            # request is answered for half a second.
            gc.collect()
            gc.freeze()
            on_ready()
        await task
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
