# SPDX-License-Identifier: BSD-3-Clause
"""The ways to bring 64-byte messages from one Python process to another: ours and its rivals.

Every channel moves the same messages and computes the same checksum: the sum of all messages as 512-bit little-endian
numbers. What a call gives is added up before the next call: a message as bytes by int.from_bytes, an array by numpy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import numpy as np

import eal
from tests.benchmarks.python_pair import Channel, Work

SIZE = 64
LANES = SIZE // 8
SLOTS = 32768  # messages that a channel holds, where that can be chosen: 2 MiB
DISTINCT = 256  # different messages; every batch divides it, and a sample is a multiple of it

# Lanes below 2**32, so that 2**32 messages can be added up in 64 bits.
PATTERN = np.random.default_rng(1).integers(1 << 32, size=(DISTINCT, LANES), dtype=np.uint64)
MESSAGES = [row.tobytes() for row in PATTERN]


def total_of(lanes: Any) -> int:
    """The checksum of messages from the sums of their lanes."""
    return sum(int(lane) << 64 * number for number, lane in enumerate(lanes))


def send_each(try_send: Callable[[bytes], Any]) -> Work:
    """Sends through a function that gives something false when there is no room."""

    def send(n: int) -> int:
        for _ in range(n // DISTINCT):
            for message in MESSAGES:
                while not try_send(message):
                    pass
        return n

    return send


def send_each_waiting(put: Callable[[bytes], Any]) -> Work:
    """Sends through a function that waits for room."""

    def send(n: int) -> int:
        for _ in range(n // DISTINCT):
            for message in MESSAGES:
                put(message)
        return n

    return send


def receive_each(try_receive: Callable[[], Any]) -> Work:
    """Receives through a function that gives None when nothing is there."""

    def receive(n: int) -> int:
        total, number = 0, int.from_bytes
        for _ in range(n):
            while (message := try_receive()) is None:
                pass
            total += number(message, "little")
        return total

    return receive


def receive_each_waiting(get: Callable[[], bytes]) -> Work:
    """Receives through a function that waits for a message."""

    def receive(n: int) -> int:
        total, number = 0, int.from_bytes
        for _ in range(n):
            total += number(get(), "little")
        return total

    return receive


class Messages(Channel):
    """A channel of the messages above."""

    step = DISTINCT
    module: str | None = None  # what has to be installed

    def expected(self, n: int) -> int:
        return total_of(PATTERN.sum(0)) * (n // DISTINCT)


# --- ours -----------------------------------------------------------------------------------------------------


class OurRing(Messages):
    """Ring.enqueue(bytes) and Ring.dequeue() -> bytes."""

    name = "ivshmem ring"
    ours = True

    def sender(self) -> Work:
        return send_each(eal.ring_lookup("bench").enqueue)

    def receiver(self) -> Work:
        return receive_each(eal.ring_lookup("bench").dequeue)


class OurBurst(Messages):
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


class OurBurst32(OurBurst):
    batch = 32


class OurBurst256(OurBurst):
    batch = 256


# --- rivals ---------------------------------------------------------------------------------------------------


class Cloudtoid(Messages):
    """cloudtoid-interprocess: a byte queue in shared memory, written in Rust."""

    name = "cloudtoid-interprocess"
    module = "cloudtoid_interprocess"
    capacity = SLOTS * (SIZE + 16)

    def queue(self) -> str:
        """A name of this run's own: its semaphore stands beside those of others."""
        return f"{Path(self.place).name}{self.batch}"

    def publisher(self) -> Any:
        from cloudtoid_interprocess import Publisher

        return Publisher(self.queue(), self.capacity, self.place)

    def sender(self) -> Work:
        return send_each(self.publisher().try_send)

    def receiver(self) -> Work:
        from cloudtoid_interprocess import Subscriber

        return receive_each(Subscriber(self.queue(), self.capacity, self.place).try_receive)


class CloudtoidBatch(Cloudtoid):
    """The same, sent in batches; it receives one at a time only."""

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

    def __init__(self, context: SpawnContext, place: str) -> None:
        self.incoming, self.outgoing = context.Pipe(duplex=False)

    def sender(self) -> Work:
        return send_each_waiting(self.outgoing.send_bytes)

    def receiver(self) -> Work:
        return receive_each_waiting(self.incoming.recv_bytes)


class Queue(Messages):
    name = "multiprocessing.Queue"

    def __init__(self, context: SpawnContext, place: str) -> None:
        self.queue = context.Queue()

    def sender(self) -> Work:
        return send_each_waiting(self.queue.put)

    def receiver(self) -> Work:
        return receive_each_waiting(self.queue.get)


class Zmq(Messages):
    """pyzmq, PUSH to PULL over a UNIX socket."""

    name = "pyzmq ipc"
    module = "zmq"

    def socket(self, kind: str) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(getattr(zmq, kind))
        socket.set_hwm(SLOTS)
        return socket

    def sender(self) -> Work:
        socket = self.socket("PUSH")
        socket.connect(f"ipc://{self.place}/zmq")
        return send_each_waiting(socket.send)

    def receiver(self) -> Work:
        socket = self.socket("PULL")
        socket.bind(f"ipc://{self.place}/zmq")
        return receive_each_waiting(socket.recv)


class Message(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64 * LANES)]


class Iceoryx(Messages):
    """iceoryx2, publish and subscribe without loss: the publisher waits for room."""

    name = "iceoryx2"
    module = "iceoryx2"

    def service(self) -> tuple[Any, Any]:
        """A node and the service in it; both have to be kept."""
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        builder = node.service_builder(iceoryx2.ServiceName.new(f"ivshmem-bench{self.place}"))
        builder = builder.publish_subscribe(Message).enable_safe_overflow(False)
        return node, builder.subscriber_max_buffer_size(SLOTS).open_or_create()

    def sender(self) -> Work:
        from iceoryx2 import BackpressureStrategy as Strategy

        kept = self.service()
        publisher = kept[1].publisher_builder().backpressure_strategy(Strategy.RetryUntilDelivered).create()
        messages = [Message.from_buffer_copy(message) for message in MESSAGES]

        def send(n: int) -> int:
            assert kept
            for _ in range(n // DISTINCT):
                for message in messages:
                    publisher.send_copy(message)
            return n

        return send

    def receiver(self) -> Work:
        kept = self.service()
        receive_sample = kept[1].subscriber_builder().buffer_size(SLOTS).create().receive
        read = ctypes.string_at

        def try_receive() -> bytes | None:
            sample = receive_sample()
            return None if sample is None else read(sample.payload_ptr, SIZE)

        receive = receive_each(try_receive)
        return lambda n: receive(n) if kept else 0


CHANNELS: tuple[type[Messages], ...] = (
    OurRing, OurBurst32, OurBurst256, Cloudtoid, CloudtoidBatch32, CloudtoidBatch256, Pipe, Queue, Zmq, Iceoryx,
)  # fmt: skip
