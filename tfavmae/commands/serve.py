"""`tfavmae serve`: a local server of exported models."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command, count
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.serving.neighbours import Neighbours
    from tfavmae.serving.versions import Model


def add_parser(commands: Any) -> None:
    """Adds `serve` to the subcommands."""
    parser = add_command(
        commands,
        "serve",
        run,
        summary="answer over HTTP with exported models",
        example="tfavmae serve export/shapes",
    )
    add = parser.add_argument
    add("directory", metavar="DIR", help="a folder that `tfavmae export` wrote")
    add("--port", type=int, default=8501, metavar="N", help="default: 8501; 0: any")
    add(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="interface (default: 127.0.0.1, this machine alone); there is no password",
    )
    add(
        "--max-batch",
        type=count,
        default=32,
        metavar="N",
        help="most rows that run together (default: 32)",
    )
    add(
        "--max-requests",
        type=count,
        default=64,
        metavar="N",
        help="requests at a time; more get status 429 (default: 64)",
    )
    add(
        "--max-megabytes",
        type=count,
        default=512,
        metavar="N",
        help="of a request with files (default: 512)",
    )
    add(
        "--timeout",
        type=count,
        default=120,
        metavar="N",
        help="seconds for a request; then it gets status 504 (default: 120)",
    )
    add(
        "--index",
        metavar="INDEX",
        help="name the nearest places in it; of the run that was exported",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command, until Ctrl-C."""
    from tfavmae.serving import missing_packages

    if missing := missing_packages():
        raise UserError(
            f"`tfavmae serve` needs {', '.join(missing)}: pip install 'tfavmae[serve]'"
        )
    from tfavmae.serving import server
    from tfavmae.serving.app import Service
    from tfavmae.serving.batching import Batcher
    from tfavmae.serving.limits import Limits
    from tfavmae.serving.versions import find_models

    models = find_models(args.directory)
    listening = server.listen(args.host, args.port)
    for model in models.values():
        model.refresh()
        if model.current is None:
            states = model.status()["model_version_status"]
            reason = states[0]["status"]["error_message"]
            raise UserError(f"{model.folder / states[0]['version']}: {reason}")
    neighbours = _neighbours(args.index, models) if args.index else None
    limits = Limits(
        max_requests=args.max_requests,
        max_bytes=args.max_megabytes * 2**20,
        request_seconds=args.timeout,
    )
    batcher = Batcher(args.max_batch)
    service = Service(models, limits, batcher=batcher, neighbours=neighbours)
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{m.name} (version {m.current.number})" for m in models.values())

    def say() -> None:
        # Flushed: who started this in the background waits for the line.
        print(f"Serving {names} at http://{host}:{port}; Ctrl-C ends it", flush=True)

    server.run(service, listening, on_ready=say)


def _neighbours(index: str, models: "dict[str, Model]") -> "Neighbours":
    from tfavmae.serving.neighbours import Neighbours

    neighbours = Neighbours(index)
    if not any(neighbours.knows(m.current) for m in models.values() if m.current):
        raise UserError(
            f"{index}: holds the vectors of {neighbours.model}, which is not what was "
            f"exported. Serve it: tfavmae export --workdir {neighbours.model}"
        )
    return neighbours
