"""Clips decoded by other machines, through tf.data's service.

A dispatcher has one worker of its own or several on other machines. Over all workers,
batch k of a run is made by worker k modulo their number, so that what arrives, and in
which order, is what the run would have read by itself.
"""

import re
import socket
import threading
import time

import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.private_hooks import num_joined_workers

_CONFIGS = tf.data.experimental.service


class _Server:
    def serve_until_ended(self):
        """Keeps this process, and what it serves, until it is interrupted."""
        threading.Event().wait()  # Ctrl-C would not get through the servers' `join`


class Dispatcher(_Server):
    """A dispatcher, in this process as long as this object; by default with a worker.

    Args:
        port: to listen on; 0 takes a free one.
        host: name by which other machines reach this one; default: its full name.
        workers: `host:port` of the `Worker`s that will join; none: one in this process.

    Attributes:
        address: what a run has to name: `host:port`, and `/n` for n joined workers.
    """

    def __init__(self, port, host=None, workers=()):
        host = host or socket.getfqdn()
        own_port = _free(0)
        # Workers that are known from the start can be told which one they are.
        config = _CONFIGS.DispatcherConfig(
            port=_free(port), worker_addresses=list(workers) or [f"{host}:{own_port}"]
        )
        self._server = _CONFIGS.DispatchServer(config)
        self.num_workers = len(workers) or 1
        _, _, port = self._server.target.rpartition(":")
        self.address = f"{host}:{port}" + (f"/{len(workers)}" if workers else "")
        if not workers:
            self._worker = Worker(f"localhost:{port}", own_port, host)

    def wait_for_workers(self):
        """Until all have joined: a run that began before would miss their share."""
        while num_joined_workers(self._server) < self.num_workers:
            time.sleep(0.1)


class Worker(_Server):
    """Makes batches for a dispatcher, in this process as long as this object.

    Args:
        dispatcher: its `host:port`.
        port: to listen on.
        host: name by which other machines reach this one; default: its full name.
    """

    def __init__(self, dispatcher, port, host=None):
        address = f"{host or socket.getfqdn()}:{port}"
        config = _CONFIGS.WorkerConfig(
            dispatcher_address=dispatcher, worker_address=address, port=_free(port)
        )
        try:
            self._server = _CONFIGS.WorkerServer(config)
        except RuntimeError as error:
            raise UserError(
                f"the dispatcher {dispatcher} does not take {address} as a worker "
                f"({str(error).splitlines()[0]}); name it among its --workers"
            ) from error


def _free(port):
    """The port, or any free one for 0."""
    # gRPC would share the port with whoever has it already.
    try:
        with socket.create_server(("", port)) as server:
            return server.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be served ({error}); choose another with --port."
        ) from error


def host_and_port(service):
    """The part of an address before `/n`."""
    return _parse(service)[0]


def _parse(service):
    found = re.fullmatch(r"([^/]+:\d+)(?:/([1-9]\d*))?", service)
    if not found:
        raise UserError(
            f"data.services: {service!r} is not host:port, or host:port/n for a "
            "dispatcher with n workers"
        )
    return found[1], int(found[2] or 1)


def spread(services, order, local_batch_size, num_steps, make_batches):
    """The batches of `make_batches(order, ...)`, made in turn by all workers.

    Args:
        services: `Dispatcher.address` of each; their workers must see the dataset's
            files where this machine does.
        order: endless dataset of what makes a clip, in the order of the clips.
        local_batch_size: clips in a batch of this host.
        num_steps: batches to give, or `tf.data.INFINITE_CARDINALITY`.
        make_batches: from a part of `order` and its number of batches to batches.
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
    if num_steps >= 0:
        batches = batches.take(num_steps)
    cardinality = tf.data.experimental.assert_cardinality(num_steps)
    return batches.apply(cardinality).prefetch(2)


def _read(address, worker, num_workers, numbered, make_batches):
    """Numbers and batches from one worker of a dispatcher.

    Its workers all get this dataset; all but one end it before its first batch.
    """
    # The dispatcher replaces the hints: a worker counts from its place in their list,
    # in steps of their number.
    hint = tf.data.experimental.SHARD_HINT
    counted = tf.data.Dataset.range(2**30).shard(hint, hint).batch(2).take(1).repeat()

    def is_mine(_, count):
        message = f"[Service] [{address}] [has not {num_workers} workers]"
        is_right = count[1] - count[0] == num_workers
        with tf.control_dependencies([tf.debugging.Assert(is_right, [message])]):
            return count[0] == worker

    mine = tf.data.Dataset.zip((numbered, counted)).take_while(is_mine)
    numbers = mine.map(lambda numbered, _: numbered[0])
    order = mine.map(lambda numbered, _: numbered[1]).unbatch()
    batches = make_batches(order, tf.data.INFINITE_CARDINALITY)
    options = tf.data.Options()
    # A worker takes all its cores from the start. Tuning them runs in a thread that
    # keeps some workers from ending.
    options.autotune.enabled = False
    return (
        tf.data.Dataset.zip((numbers, batches))
        .with_options(options)
        .apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.HINT,
                service=f"grpc://{address}",
                compression=None,  # pixels hardly shrink, and cores are what is short
            )
        )
    )


def _check_number(expected, received):
    number, batch = received
    message = "[Service] [a worker] [was started anew and begins at its first batch]"
    right = tf.debugging.Assert(number == expected, [message, number, expected])
    with tf.control_dependencies([right]):
        return tf.nest.map_structure(tf.identity, batch)


_PROBLEM = re.compile(r"\[Service\] \[(.*?)\] \[(.*?)\]")


class naming_services:
    """Turns the graph's error about a service into a one-line `UserError`."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        found = isinstance(error, tf.errors.OpError) and _PROBLEM.search(str(error))
        if found:
            raise UserError(
                f"data.services: {found[1]} {found[2]}; name them as `tfavmae data "
                "serve` prints it, and give the same command again"
            ) from error
        return False
