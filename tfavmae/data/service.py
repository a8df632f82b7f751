"""Clips decoded by other machines, through tf.data's service.

A machine that lends its cores runs `tfavmae data serve`: a dispatcher and one worker.
Batch k of a run is made by machine k modulo their number, so that what arrives, and in
which order, is what the run would have read by itself. A dispatcher with many workers
would hand batches out as they come.
"""

import socket
import threading

import tensorflow as tf

from tfavmae.errors import UserError


class Service:
    """A dispatcher and its one worker, in this process as long as this object.

    Args:
        port: of the dispatcher; 0 takes a free one.
        host: name by which other machines reach this one; default: its full name.
    """

    def __init__(self, port, host=None):
        host = host or socket.getfqdn()
        configs = tf.data.experimental.service
        _check_free(port)
        self.dispatcher = configs.DispatchServer(configs.DispatcherConfig(port=port))
        _, _, port = self.dispatcher.target.rpartition(":")
        self.address = f"{host}:{port}"
        self.worker = configs.WorkerServer(
            configs.WorkerConfig(
                dispatcher_address=f"localhost:{port}", worker_address=f"{host}:%port%"
            )
        )

    def wait(self):
        """Serves until the process is ended."""
        threading.Event().wait()  # Ctrl-C would not get through the servers' `join`


def _check_free(port):
    # gRPC would share the port with whoever has it already.
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be served ({error}); choose another with --port."
        ) from error


def spread(services, order, local_batch_size, num_steps, make_batches):
    """The batches of `make_batches(order, num_steps)`, made in turn by `services`.

    Args:
        services: `host:port` of each; all must see the dataset's files where this
            machine does.
        order: dataset of what makes a clip, in the order of the clips.
        local_batch_size: clips in a batch of this host.
        num_steps: batches that there are, or `tf.data.INFINITE_CARDINALITY`.
        make_batches: from a part of `order` and its number of batches to batches.
    """
    count, batched = len(services), order.batch(local_batch_size, drop_remainder=True)
    parts = []
    for i, address in enumerate(services):
        steps = num_steps if num_steps < 0 else len(range(i, num_steps, count))
        part = make_batches(batched.shard(count, i).unbatch(), steps)
        parts.append(part.apply(_remote(address)))
    turns = tf.data.Dataset.range(count).repeat()
    # It ends with the first service that has no batch left.
    batches = tf.data.Dataset.choose_from_datasets(parts, turns)
    cardinality = tf.data.experimental.assert_cardinality(num_steps)
    return batches.apply(cardinality).prefetch(2)


def _remote(address):
    return tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
        service=f"grpc://{address}",
        compression=None,  # pixels hardly shrink, and it costs the cores that are short
    )
