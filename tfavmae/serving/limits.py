"""Limits on what clients may take: bytes, time, and places at the same time.

Each limit that is reached is answered, with the status that says which it was.
"""

import asyncio
import contextlib
import dataclasses
import json
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfavmae.serving.protocol import RequestError

_DISCARD_SECONDS = 5.0  # for what a refused client still sends


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Args:
        max_requests: requests in work at a time; more are answered with 429.
        max_bytes: of the body of a request with a file; more is answered with 413.
        max_json_bytes: of the body of any other request.
        header_seconds: in which the headers of a request must arrive.
        body_seconds: in which its body must arrive, else 408.
        request_seconds: in which it must be answered, else 504.
    """

    max_requests: int = 64
    max_bytes: int = 2**29
    max_json_bytes: int = 2**26
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    request_seconds: float = 120.0


def error_body(message: str) -> bytes:
    """The body of an error in TF Serving's form."""
    return json.dumps({"error": message}).encode()


class Limited:
    """ASGI middleware that keeps requests within `Limits`.

    Args:
        app: the server behind it.
        limits: see there.

    Attributes:
        num_running: requests in work.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits, self.num_running = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            # A look at the health or the metrics must not depend on a free place.
            await self.app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self.limits)
        try:
            request.check_headers()
            if self.num_running >= self.limits.max_requests:
                raise RequestError(
                    429, f"Busy with {self.num_running} requests; try again later."
                )
        except RequestError as error:
            await request.discard()
            await request.refuse(error)
            return
        self.num_running += 1
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                await self.app(scope, request.receive, request.send)
        except RequestError as error:
            await request.refuse(error)
        except TimeoutError:
            seconds = self.limits.request_seconds
            await request.refuse(
                RequestError(504, f"Timed out: not answered within {seconds:g} s.")
            )
        finally:
            self.num_running -= 1


class _Request:
    """One request: counts what arrives, and knows whether its answer has begun."""

    def __init__(self, scope, receive, send, limits: Limits) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._headers = dict(scope["headers"])
        kind = self._headers.get(b"content-type", b"")
        is_file = kind.startswith(b"multipart/form-data")
        self._max_bytes = limits.max_bytes if is_file else limits.max_json_bytes
        self._num_bytes, self._has_begun = 0, False
        self._deadline: float | None = (
            asyncio.get_running_loop().time() + limits.body_seconds
        )

    def check_headers(self) -> None:
        """Raises `RequestError` for what the headers alone show."""
        coding = self._headers.get(b"content-encoding", b"identity")
        if coding != b"identity":
            # A few bytes could unpack to gigabytes.
            raise RequestError(415, "Send the body as it is, without Content-Encoding.")
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        mebibytes = self._max_bytes / 2**20
        return RequestError(413, f"The body exceeds {mebibytes:g} MiB, the maximum.")

    async def receive(self) -> Message:
        """The next part of the body."""
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._limits.body_seconds
            raise RequestError(
                408, f"The body did not arrive within {seconds:g} s."
            ) from None
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                self._deadline = None  # what follows is the client's farewell
        return message

    async def send(self, message: Message) -> None:
        """Passes a part of the answer on."""
        self._has_begun = True
        await self._send(message)

    async def discard(self) -> None:
        """Reads what is still arriving of the body, for a while.

        A connection that is closed before takes the answer with it.
        """
        if b"expect" in self._headers:
            return  # the client sends nothing before it is told to
        with contextlib.suppress(RequestError, TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while (await self.receive()).get("more_body"):
                    pass

    async def refuse(self, error: RequestError) -> None:
        """Answers with an error, unless another answer has begun."""
        if self._has_begun:
            raise error  # cuts the connection: the client sees that its answer is short
        body = error_body(error.message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if error.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        if error.status == 408:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": error.status}
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def patient_protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's connection, which closes if the headers of a request do not arrive.

    uvicorn itself waits for them without an end, so that a few slow clients could hold
    all its connections. The body has a time limit of its own, in `Limited`.
    """

    class PatientProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self._is_at_work():
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self._give_up)

        def _is_at_work(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _give_up(self) -> None:
            self._timer = None
            if self._is_at_work() or self.transport.is_closing():
                return
            if self.conn.our_state is h11.IDLE:
                body = error_body("The headers did not arrive in time.")
                self.transport.write(
                    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                    b"Content-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
            self.transport.close()

    return PatientProtocol
