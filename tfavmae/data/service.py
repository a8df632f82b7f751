"""Decoding on other machines, through the tf.data service.

A dispatcher has one worker in its own process, or several on other machines. Batch k of
a run is made by worker k modulo the number of all workers, so the batches and their
order are those that the run would have read by itself.

The service has no authentication. TensorFlow's servers (read in 2.20) listen on
`0.0.0.0`, whatever they are told, with the one kind of credentials that is registered,
`grpc`, which is none; and they run every graph that they are sent. So whoever reaches a
port reads and writes files as the user who serves: see `SECURITY.md`.
"""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.private_hooks import num_joined_workers

_CONFIGS = tf.data.experimental.service

EXPOSURE = (
    "a tf.data service listens on all network interfaces, whatever --host says, and "
    "runs every graph that it is sent: whoever reaches its ports reads and writes "
    "files as this user"
)


class _Server:
    def __init__(self, trust_network: bool) -> None:
        # Not on machines without a network either: the other users of this one would
        # reach it.
        if not trust_network:
            raise UserError(
                f"refused: {EXPOSURE}. On a private network or in a tunnel, give "
                "--trust-network; see SECURITY.md."
            )

    def serve_until_ended(self) -> None:
        """Keeps this process and its server running until it is interrupted."""
        # Not the server's own `join`, which Ctrl-C does not interrupt.
        threading.Event().wait()


class Dispatcher(_Server):
    """A dispatcher of the tf.data service, which runs as long as this object exists.

    Args:
        port: port to listen on; 0 takes a free one.
        host: name by which other machines reach this one; default: its full name.
        workers: `host:port` of the `Worker`s that will join; default: a worker in this
            process.
        trust_network: must be True, because everyone who reaches this machine over the
            network can run code on it with this user's rights.

    Attributes:
        address: the address for a run's `data.services`: `host:port`, followed by `/n`
            if n workers join.

    Raises:
        UserError: the network is not trusted, or the port is taken.
    """

    def __init__(
        self,
        port: int,
        host: str | None = None,
        workers: Sequence[str] = (),
        *,
        trust_network: bool = False,
    ) -> None:
        super().__init__(trust_network)
        host = host or socket.getfqdn()
        own_port = _free(0)
        # A dispatcher gives its workers numbers only if it knows their addresses from
        # the start; `_read` needs the numbers.
        config = _CONFIGS.DispatcherConfig(
            port=_free(port), worker_addresses=list(workers) or [f"{host}:{own_port}"]
        )
        self._server = _CONFIGS.DispatchServer(config)
        self.num_workers = len(workers) or 1
        _, _, port = self._server.target.rpartition(":")
        self.address = f"{host}:{port}" + (f"/{len(workers)}" if workers else "")
        if not workers:
            dispatcher = f"localhost:{port}"
            self._worker = Worker(
                dispatcher, own_port, host, trust_network=trust_network
            )

    def wait_for_workers(self) -> None:
        """Waits until all workers have joined.

        A run that begins earlier would miss the batches of those that have not.
        """
        while num_joined_workers(self._server) < self.num_workers:
            time.sleep(0.1)


class Worker(_Server):
    """A worker that makes batches for a dispatcher as long as this object exists.

    Args:
        dispatcher: `host:port` of the dispatcher.
        port: port to listen on.
        host: name by which other machines reach this one; default: its full name.
        trust_network: see `Dispatcher`.

    Raises:
        UserError: the network is not trusted, the port is taken, or the dispatcher does
            not know this worker.
    """

    def __init__(
        self,
        dispatcher: str,
        port: int,
        host: str | None = None,
        *,
        trust_network: bool = False,
    ) -> None:
        super().__init__(trust_network)
        address = f"{host or socket.getfqdn()}:{port}"
        config = _CONFIGS.WorkerConfig(
            dispatcher_address=dispatcher, worker_address=address, port=_free(port)
        )
        try:
            self._server = _CONFIGS.WorkerServer(config)
        except RuntimeError as error:
            raise UserError(
                f"the dispatcher {dispatcher} does not take {address} as a worker "
                f"({str(error).splitlines()[0]}); name it among its --workers."
            ) from error


def _free(port):
    """The port, or any free one for 0."""
    # gRPC sets SO_REUSEPORT: it would share a port that another server has already.
    try:
        with socket.create_server(("", port)) as server:
            return server.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be used ({error}); choose another with --port."
        ) from error


def host_and_port(service: str) -> str:
    """The part of a service's address before `/n`.

    Raises:
        UserError: it is not an address.
    """
    return _parse(service)[0]


def _parse(service):
    """`host:port` and number of workers."""
    found = re.fullmatch(r"([^/]+:\d+)(?:/([1-9]\d*))?", service)
    if not found:
        raise UserError(
            f"data.services: {service!r} is not host:port, or host:port/n for a "
            "dispatcher with n workers."
        )
    return found[1], int(found[2] or 1)


def spread(
    services: Sequence[str],
    order: tf.data.Dataset,
    local_batch_size: int,
    num_steps: int,
    make_batches: Callable[[tf.data.Dataset, int], tf.data.Dataset],
) -> tf.data.Dataset:
    """The batches of `make_batches(order, num_steps)`, made in turn by all workers.

    Args:
        services: `Dispatcher.address` of each dispatcher; their workers must see the
            files of the data set under the same paths as this machine.
        order: endless data set of the elements that clips are made from, in order.
        local_batch_size: clips in a batch of this host.
        num_steps: number of batches, or `tf.data.INFINITE_CARDINALITY`.
        make_batches: function from a part of `order` and its number of batches to the
            batches.

    Raises:
        UserError: an address is not one.
    """
    workers = [
        (address, i, count)
        for address, count in map(_parse, services)
        for i in range(count)
    ]
    numbered = order.batch(local_batch_size, drop_remainder=True).enumerate()
    streams = [
        _read(*worker, numbered.shard(len(workers), turn), make_batches)
        for turn, worker in enumerate(workers)
    ]
    turns = tf.data.Dataset.range(len(workers)).repeat()
    batches = tf.data.Dataset.choose_from_datasets(streams, turns)
    batches = batches.enumerate().map(_check_number)
    if num_steps >= 0:  # INFINITE_CARDINALITY is -1
        batches = batches.take(num_steps)
    cardinality = tf.data.experimental.assert_cardinality(num_steps)
    return batches.apply(cardinality).prefetch(2)


def _read(address, worker, num_workers, numbered, make_batches):
    """Numbers and batches from one worker of a dispatcher.

    The dispatcher gives this data set to all its workers; all but one end it before
    its first batch.
    """
    # Nothing else tells a worker which one it is: the dispatcher replaces the two hints
    # by the number of workers and the worker's place in their list, so that the
    # worker's range begins with its place and goes on in steps of their number.
    hint = tf.data.experimental.SHARD_HINT
    counted = tf.data.Dataset.range(2**30).shard(hint, hint).batch(2).take(1).repeat()

    def is_mine(_: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        message = f"[Service] [{address}] [does not have {num_workers} workers]"
        is_right = count[1] - count[0] == num_workers
        with tf.control_dependencies([tf.debugging.Assert(is_right, [message])]):
            return count[0] == worker

    mine = tf.data.Dataset.zip((numbered, counted)).take_while(is_mine)
    numbers = mine.map(lambda numbered, _: numbered[0])
    order = mine.map(lambda numbered, _: numbered[1]).unbatch()
    batches = make_batches(order, tf.data.INFINITE_CARDINALITY)
    options = tf.data.Options()
    # The workers that end at once would wait for the thread that tunes parallelism
    # (seen in TensorFlow 2.20); without it, a worker uses all its cores from the start.
    options.autotune.enabled = False
    return (
        tf.data.Dataset.zip((numbers, batches))
        .with_options(options)
        .apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.HINT,
                service=f"grpc://{address}",
                compression=None,  # costs cores, which are scarce, and saves little
            )
        )
    )


def _check_number(expected, received):
    number, batch = received
    # A worker that was restarted begins at its first batch: the run would silently read
    # clips twice.
    message = "[Service] [a worker] [was restarted and begins at its first batch]"
    right = tf.debugging.Assert(number == expected, [message, number, expected])
    with tf.control_dependencies([right]):
        return tf.nest.map_structure(tf.identity, batch)


_PROBLEM = re.compile(r"\[Service\] \[(.*?)\] \[(.*?)\]")


@contextlib.contextmanager
def naming_services() -> Iterator[None]:
    """Turns a graph's error about a service into a one-line `UserError`.

    Raises:
        UserError: a dispatcher has another number of workers, or a worker was
            restarted.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = _PROBLEM.search(str(error))
        if not found:
            raise
        raise UserError(
            f"data.services: {found[1]} {found[2]}; give the addresses that `tfavmae "
            "data serve` prints, and run the same command again."
        ) from error
