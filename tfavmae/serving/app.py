"""Routes of the local server: TF Serving's REST API, files, health, metrics, a page.

Starlette and uvicorn, because they are small, widely used and do no more than is needed
here: the protocol has its own shapes of requests and errors, which FastAPI's validation
would have to be told to leave alone.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tfavmae.building.worker_pool import WorkerPool, available_cores
from tfavmae.errors import UserError, on_one_line
from tfavmae.files import scratch_folder
from tfavmae.media.decode import STILL_EXTENSIONS
from tfavmae.pages import rendering
from tfavmae.serving import clips, file_answers, protocol
from tfavmae.serving.batching import Batcher
from tfavmae.serving.limits import Limited, Limits, error_body
from tfavmae.serving.measures import Measures
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.protocol import RequestError
from tfavmae.serving.versions import Model, Version

if TYPE_CHECKING:
    from tfavmae.serving.neighbours import Neighbours

# As in TF Serving, but for its labels of versions, which it can be told and we cannot.
_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+))?"
    r"(?:/(?P<what>metadata)|:(?P<verb>[a-z_]+))?"
)
# The start of a picture's file; its name does not count.
_STILLS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"BM": ".bmp",
}
_MAX_FILES = 16
# A page that takes files of anybody runs nothing but itself.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Service:
    """Answers the requests of one server.

    Args:
        models: by name; see `versions.find_models`.
        limits: on the requests.
        batcher: runs the models.
        pool: decodes files; None for one of as many workers as there are cores.
        poll_seconds: between two looks for new versions.
        neighbours: of the index whose nearest places join the answers of `:embed`.
    """

    def __init__(
        self,
        models: dict[str, Model],
        limits: Limits | None = None,
        *,
        batcher: Batcher | None = None,
        pool: WorkerPool | None = None,
        poll_seconds: float = 2.0,
        neighbours: "Neighbours | None" = None,
    ) -> None:
        self.models, self.limits = models, limits or Limits()
        self.poll_seconds, self.neighbours = poll_seconds, neighbours
        self.batcher = batcher or Batcher()
        seconds = self.limits.request_seconds
        self.pool = pool or WorkerPool(time_limit_seconds=seconds)
        self.measures = Measures(models)
        self.batcher.on_batch = self.measures.on_batch
        # They wait for decoders and parse JSON, so that the loop never does; long files
        # must not keep the others waiting.
        self._threads = concurrent.futures.ThreadPoolExecutor(2 * available_cores() + 2)
        self._parsers = concurrent.futures.ThreadPoolExecutor(2, "parser")
        self._loader = concurrent.futures.ThreadPoolExecutor(1, "loader")
        self._asker = file_answers.Asker(self.pool, self.batcher, self._threads)
        self._forms: dict[pathlib.Path, ClipForm] = {}

    def app(self) -> Limited:
        """The ASGI application."""
        routes = [
            Route("/", self.page),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/monitoring/prometheus/metrics", self.metrics),  # TF Serving's
            Route("/v1/{path:path}", self.api, methods=["GET", "POST"]),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={
                RequestError: _error_answer,
                HTTPException: _error_answer,
                Exception: _error_answer,
            },
        )
        limited = Limited(app, self.limits)
        self.measures.num_running = lambda: limited.num_running
        return limited

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            with scratch_folder() as self._scratch:
                yield
        finally:
            watching.cancel()
            self._loader.shutdown(wait=False, cancel_futures=True)
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._parsers.shutdown(wait=False, cancel_futures=True)
            self.pool.close()
            self.batcher.close()

    async def _watch(self) -> None:
        """Looks for new versions for as long as the server runs."""
        loop = asyncio.get_running_loop()
        while True:
            for model in self.models.values():
                await loop.run_in_executor(self._loader, model.refresh)
            await asyncio.sleep(self.poll_seconds)

    # --- Routes ---

    async def page(self, request: Request) -> Response:
        """A page to drop a file on."""
        models = []
        for model in self.models.values():
            if model.current is not None:
                known = file_answers.VERBS
                verbs = [v for v in known if clips.signatures_for(model.current, v)]
                models.append({"name": model.name, "verbs": verbs})
        content = rendering.render(
            "serve.html",
            title="Ask a model about a clip",
            subtitle="Drop a video, an audio file or a picture. It is read by this "
            "server alone and not kept.",
            sections=[],
            models=models,
            has_index=self.neighbours is not None,
        )
        headers = {
            "Content-Security-Policy": _PAGE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(content, headers=headers)

    async def health(self, request: Request) -> Response:
        """200 as soon as every model can answer, 503 before."""
        waiting = [m.name for m in self.models.values() if m.current is None]
        if waiting:
            raise RequestError(503, f"Not loaded: {', '.join(waiting)}.")
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Counts and durations in Prometheus' text format."""
        content, kind = self.measures.exposition()
        return Response(content, media_type=kind)

    async def api(self, request: Request) -> Response:
        """Everything below /v1/."""
        # Not `request.url.path`, which is quoted: %2F is a slash here as well.
        path = request.scope["path"]
        match = _PATH.fullmatch(path)
        is_get = request.method == "GET"
        if match is None or is_get == bool(match["verb"]):
            text = on_one_line(path)[:200]
            raise RequestError(400, f"Malformed request: {request.method} {text}")
        number = None
        if match["version"] is not None:
            if len(match["version"]) > 19 or int(match["version"]) >= 2**63:
                raise RequestError(
                    400, f"Failed to convert version: {match['version'][:40]}"
                )
            number = int(match["version"])
        model = self.models.get(match["model"])
        if model is None:
            name = on_one_line(match["model"])[:100]
            if is_get and not match["what"]:
                raise RequestError(404, f"Could not find any versions of model {name}")
            raise RequestError(404, f"Servable not found for request: Latest({name})")
        if is_get and match["what"]:
            version = model.version(number)
            return JSONResponse(
                protocol.metadata(model.name, version.number, version.signatures)
            )
        if is_get:
            return JSONResponse(model.status(number))
        # Before it is counted: a client must not make up labels of the metrics.
        verb = match["verb"]
        if not (is_predict := verb == "predict"):
            file_answers.check_verb(verb)
        with self.measures.counting(model.name, verb) as outcome:
            version = model.version(number)
            if is_predict:
                answer = await self._predict(version, request)
            else:
                answer = await self._ask(version, verb, request)
            outcome.status = answer.status_code
        return answer

    async def _predict(self, version: Version, request: Request) -> Response:
        body = await request.body()
        loop = asyncio.get_running_loop()
        asked = await loop.run_in_executor(
            self._parsers, protocol.read_predict, body, version.signatures
        )
        outputs = await self.batcher.run(version, asked.signature, asked.inputs)
        content = await loop.run_in_executor(
            self._parsers,
            lambda: protocol.write_predict(outputs, is_rows=asked.is_rows),
        )
        return Response(content, media_type="application/json")

    # --- Files ---

    async def _ask(self, version: Version, verb: str, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            raise RequestError(
                400,
                f"`:{verb}` takes files: send them as multipart/form-data, such as "
                f"`curl -F file=@clip.mp4 ...:{verb}`; arrays go to `:predict`.",
            )
        options = _Options.of(request)
        form = self._form(version)
        files = contextlib.ExitStack()
        try:
            paths = await self._receive(request, files)
            answers = self._answers(version, form, verb, paths, options)
            if options.stream:
                # The first line is awaited, so that bad input still has its status.
                first = await anext(answers)
                lines = _lines(first, answers, files.pop_all())
                return StreamingResponse(lines, media_type="application/x-ndjson")
            found = [answer async for answer in answers]
        finally:
            files.close()
        return JSONResponse({"results": found})

    def _form(self, version: Version) -> ClipForm:
        if version.path not in self._forms:
            try:
                self._forms[version.path] = clips.form_of(version)
            except UserError as error:
                raise RequestError(501, str(error)) from error
        return self._forms[version.path]

    async def _receive(
        self, request: Request, files: contextlib.ExitStack
    ) -> list[tuple[str, pathlib.Path]]:
        """The files of a request: the client's name, and where the content lies.

        Args:
            request: of multipart/form-data.
            files: removes the files when it is closed.
        """
        folder = files.enter_context(tempfile.TemporaryDirectory(dir=self._scratch))
        loop = asyncio.get_running_loop()
        paths = []
        async with request.form(max_files=_MAX_FILES, max_fields=16) as form:
            for index, (_, part) in enumerate(form.multi_items()):
                if not isinstance(part, UploadFile):
                    continue
                name = on_one_line(part.filename or f"file {index}")[:200]
                path = pathlib.Path(folder, f"{index}{_suffix(part)}")
                await loop.run_in_executor(self._threads, _copy, part, path)
                paths.append((name, path))
        if not paths:
            raise RequestError(400, "The request holds no file; send `file=@clip.mp4`.")
        return paths

    async def _answers(
        self, version: Version, form: ClipForm, verb: str, paths, options
    ) -> AsyncIterator[dict[str, Any]]:
        """One answer for each file; with `stream`, one for each window before it."""
        for name, path in paths:
            try:
                info = await self._asker.probe(path)
                signature, _ = clips.choose_signature(version, verb, info)
                mean, windows = file_answers.Mean(), []
                found = self._asker.windows(version, form, signature, path, info)
                async for one in found:
                    mean.add(one)
                    shown = {
                        "start_seconds": round(one.start_seconds, 3),
                        "end_seconds": round(one.end_seconds, 3),
                        **file_answers.to_answer(
                            one.outputs, version.labels, options.top
                        ),
                    }
                    if options.stream:
                        yield {"file": name, "window": shown}
                    elif options.windows or verb in ("similarity", "events"):
                        windows.append(shown)
            except RequestError as error:
                raise RequestError(error.status, f"{name}: {error.message}") from error
            outputs = mean.outputs()
            answer = {
                "file": name,
                "signature": signature,
                "num_windows": mean.num_windows,
                **file_answers.to_answer(outputs, version.labels, options.top),
            }
            if windows:
                answer["windows"] = windows
            known = self.neighbours
            if known is not None and verb == "embed" and known.knows(version):
                answer["nearest"] = await asyncio.get_running_loop().run_in_executor(
                    self._threads, known.of, outputs
                )
            yield answer


class _Options:
    """What the query of a request about files says."""

    def __init__(self, top: int, windows: bool, stream: bool) -> None:
        self.top, self.windows, self.stream = top, windows, stream

    @classmethod
    def of(cls, request: Request) -> "_Options":
        query = dict(request.query_params)
        top = query.pop("top", "5")
        flags = {name: query.pop(name, "false") for name in ("windows", "stream")}
        if query:
            raise RequestError(
                400,
                f"Unknown option {on_one_line(next(iter(query)))[:50]!r}; known: top, "
                "windows, stream.",
            )
        if not re.fullmatch("[1-9][0-9]{0,5}", top):
            raise RequestError(400, "`top` must be a whole number of at least 1.")
        for name, value in flags.items():
            if value not in ("true", "false"):
                raise RequestError(400, f"`{name}` must be true or false.")
        return cls(int(top), flags["windows"] == "true", flags["stream"] == "true")


async def _lines(
    first: dict[str, Any],
    answers: AsyncIterator[dict[str, Any]],
    files: contextlib.ExitStack,
) -> AsyncIterator[bytes]:
    """Answers as JSON lines. An error that comes too late for a status is the last."""
    with files:
        yield json.dumps(first).encode() + b"\n"
        try:
            async for answer in answers:
                yield json.dumps(answer).encode() + b"\n"
        except RequestError as error:
            yield error_body(error.message) + b"\n"


def _suffix(part: UploadFile) -> str:
    """The ending under which a file is stored: by its content if it is a picture.

    FFmpeg is helped by the ending of a client's name, which is not used otherwise.
    """
    start = part.file.read(12)
    part.file.seek(0)
    for magic, suffix in _STILLS.items():
        if start.startswith(magic):
            return suffix
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return ".webp"
    match = re.search(r"\.[A-Za-z0-9]{1,5}$", part.filename or "")
    suffix = match[0].lower() if match else ".media"
    return ".media" if suffix in STILL_EXTENSIONS else suffix


def _copy(part: UploadFile, path: pathlib.Path) -> None:
    with open(path, "wb") as file:
        shutil.copyfileobj(part.file, file, 2**20)


async def _error_answer(request: Request, error: Exception) -> Response:
    """Any error in TF Serving's form."""
    if isinstance(error, RequestError):
        status, message = error.status, error.message
    elif isinstance(error, HTTPException):
        status, message = error.status_code, f"{error.detail}"
    else:
        # Starlette raises it again, and uvicorn writes the traceback to the log.
        status, message = 500, f"Internal error: {type(error).__name__}"
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"error": message}, status, headers=headers)
