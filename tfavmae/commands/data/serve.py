"""`tfavmae data serve`: decode training clips on another machine."""

import argparse
import sys
from typing import Any

from tfavmae.commands.arguments import add_command


def add_parser(commands: Any) -> None:
    """Adds `serve` to the subcommands of `data`."""
    parser = add_command(
        commands,
        "serve",
        run,
        summary="decode training clips for runs on other machines",
        example="tfavmae data serve --port 5050 --trust-network",
    )
    add = parser.add_argument
    add(
        "--trust-network",
        action="store_true",
        help="required: whoever reaches the ports, from anywhere, runs code here with "
        "your rights (SECURITY.md); for private networks and tunnels only",
    )
    add("--port", type=int, default=5050, metavar="N", help="default: 5050")
    add(
        "--host",
        metavar="NAME",
        help="this machine's name for the others, by default its host name; the "
        "service listens on all interfaces, not on this one alone",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--workers",
        nargs="+",
        default=[],
        metavar="HOST:PORT",
        help="machines that join with --dispatcher and decode; default: this one",
    )
    group.add_argument(
        "--dispatcher", metavar="HOST:PORT", help="the one to join as a worker"
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command, until Ctrl-C."""
    from tfavmae.data import service

    trust = {"trust_network": args.trust_network}
    if args.trust_network:
        print(f"tfavmae: warning: {service.EXPOSURE}", file=sys.stderr, flush=True)
    if args.dispatcher:
        server = service.Worker(args.dispatcher, args.port, args.host, **trust)
        client = args.dispatcher
    else:
        server = service.Dispatcher(args.port, args.host, args.workers, **trust)
        if args.workers:
            names = ", ".join(args.workers)
            print(f"Waiting for `tfavmae data serve` on {names}", flush=True)
        server.wait_for_workers()
        client = f"runs with --set data.services=[{server.address}]"
    # Flushed: who started this in the background waits for the line.
    print(f"Decoding for {client}; Ctrl-C ends it", flush=True)
    server.serve_until_ended()
