# SPDX-License-Identifier: BSD-3-Clause
"""Channels for 64-byte messages from one Python process to another: this project's rings, and other IPC libraries."""

from __future__ import annotations

import ctypes
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import numpy as np

import eal
from tests.benchmarks.python.messages import (
    DISTINCT,
    LANES,
    MESSAGES,
    PATTERN,
    SIZE,
    SLOTS,
    Messages,
    receive_each,
    receive_each_waiting,
    send_each,
    send_each_waiting,
    total_of,
)
from tests.benchmarks.python.pair import Work

# --- this project ---------------------------------------------------------------------------------------------


class RingChannel(Messages):
    """Ring.enqueue(bytes) and Ring.dequeue() -> bytes."""

    name = "ivshmem ring"
    ours = True

    def sender(self) -> Work:
        return send_each(eal.ring_lookup("bench").enqueue)

    def receiver(self) -> Work:
        return receive_each(eal.ring_lookup("bench").dequeue)


class BurstChannel(Messages):
    """Burst.enqueue and Burst.dequeue."""

    name = "ivshmem Burst"
    ours = True

    def sender(self) -> Work:
        n_bursts, ring = DISTINCT // self.batch, eal.ring_lookup("bench")
        bursts = [ring.burst(self.batch) for _ in range(n_bursts)]
        for burst, part in zip(bursts, np.split(PATTERN, n_bursts), strict=True):
            burst.array[:] = part.view(np.uint8)
        enqueues = [burst.enqueue for burst in bursts]

        def send(n: int) -> int:
            batch = self.batch
            for _ in range(n // DISTINCT):
                for enqueue in enqueues:
                    done = enqueue(batch)
                    while done < batch:
                        done += enqueue(batch - done, done)
            return n

        return send

    def receiver(self) -> Work:
        burst = eal.ring_lookup("bench").burst(self.batch)
        lanes = burst.array.view(np.uint64)

        def receive(n: int) -> int:
            dequeue, add, batch = burst.dequeue, np.add, self.batch
            sums = np.zeros_like(lanes)
            while n:
                got = dequeue()
                if got == batch:
                    add(sums, lanes, sums)
                elif got:
                    add(sums[:got], lanes[:got], sums[:got])
                n -= got
            return total_of(sums.sum(0))

        return receive


class BurstChannel32(BurstChannel):
    batch = 32


class BurstChannel256(BurstChannel):
    batch = 256


# --- other libraries ------------------------------------------------------------------------------------------


class Cloudtoid(Messages):
    """cloudtoid-interprocess: a byte queue in shared memory, written in Rust."""

    name = "cloudtoid-interprocess"
    module = "cloudtoid_interprocess"
    capacity = SLOTS * (SIZE + 16)

    def queue(self) -> str:
        """Return a queue name that is unique to this run, because its semaphore has a global name."""
        return f"{Path(self.directory).name}{self.batch}"

    def publisher(self) -> Any:
        from cloudtoid_interprocess import Publisher

        return Publisher(self.queue(), self.capacity, self.directory)

    def sender(self) -> Work:
        return send_each(self.publisher().try_send)

    def receiver(self) -> Work:
        from cloudtoid_interprocess import Subscriber

        return receive_each(Subscriber(self.queue(), self.capacity, self.directory).try_receive)


class CloudtoidBatch(Cloudtoid):
    """cloudtoid-interprocess with batches on the sending side; it cannot receive batches."""

    def sender(self) -> Work:
        send_batch = self.publisher().try_send_batch
        batches = [MESSAGES[at : at + self.batch] for at in range(0, DISTINCT, self.batch)]

        def send(n: int) -> int:
            for _ in range(n // DISTINCT):
                for batch in batches:
                    done = send_batch(batch)
                    while done < self.batch:
                        done += send_batch(batch[done:])
            return n

        return send


class CloudtoidBatch32(CloudtoidBatch):
    batch = 32


class CloudtoidBatch256(CloudtoidBatch):
    batch = 256


class Pipe(Messages):
    name = "multiprocessing.Pipe"

    def __init__(self, context: SpawnContext, directory: str) -> None:
        self.incoming, self.outgoing = context.Pipe(duplex=False)

    def sender(self) -> Work:
        return send_each_waiting(self.outgoing.send_bytes)

    def receiver(self) -> Work:
        return receive_each_waiting(self.incoming.recv_bytes)


class Queue(Messages):
    name = "multiprocessing.Queue"

    def __init__(self, context: SpawnContext, directory: str) -> None:
        self.queue = context.Queue()

    def sender(self) -> Work:
        return send_each_waiting(self.queue.put)

    def receiver(self) -> Work:
        return receive_each_waiting(self.queue.get)


class Zmq(Messages):
    """pyzmq: PUSH to PULL over a UNIX socket."""

    name = "pyzmq ipc"
    module = "zmq"

    def socket(self, kind: str) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(getattr(zmq, kind))
        socket.set_hwm(SLOTS)
        return socket

    def sender(self) -> Work:
        socket = self.socket("PUSH")
        socket.connect(f"ipc://{self.directory}/zmq")
        return send_each_waiting(socket.send)

    def receiver(self) -> Work:
        socket = self.socket("PULL")
        socket.bind(f"ipc://{self.directory}/zmq")
        return receive_each_waiting(socket.recv)


class Message(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64 * LANES)]


class Iceoryx(Messages):
    """iceoryx2: lossless publish and subscribe; the publisher waits while the subscriber's buffer is full."""

    name = "iceoryx2"
    module = "iceoryx2"

    def service(self) -> tuple[Any, Any]:
        """Return a node and its service; the caller must keep references to both."""
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        builder = node.service_builder(iceoryx2.ServiceName.new(f"ivshmem-bench{self.directory}"))
        builder = builder.publish_subscribe(Message).enable_safe_overflow(False)
        return node, builder.subscriber_max_buffer_size(SLOTS).open_or_create()

    def sender(self) -> Work:
        from iceoryx2 import BackpressureStrategy as Strategy

        node_and_service = self.service()
        publisher = node_and_service[1].publisher_builder().backpressure_strategy(Strategy.RetryUntilDelivered).create()
        messages = [Message.from_buffer_copy(message) for message in MESSAGES]

        def send(n: int) -> int:
            assert node_and_service  # keeps them alive
            for _ in range(n // DISTINCT):
                for message in messages:
                    publisher.send_copy(message)
            return n

        return send

    def receiver(self) -> Work:
        node_and_service = self.service()
        receive_sample = node_and_service[1].subscriber_builder().buffer_size(SLOTS).create().receive
        read = ctypes.string_at

        def try_receive() -> bytes | None:
            sample = receive_sample()
            return None if sample is None else read(sample.payload_ptr, SIZE)

        receive = receive_each(try_receive)
        return lambda n: receive(n) if node_and_service else 0


CHANNELS: tuple[type[Messages], ...] = (
    RingChannel,
    BurstChannel32,
    BurstChannel256,
    Cloudtoid,
    CloudtoidBatch32,
    CloudtoidBatch256,
    Pipe,
    Queue,
    Zmq,
    Iceoryx,
)
