# SPDX-License-Identifier: BSD-3-Clause
"""Exchange: send all messages of the demo to the guest and check all answers."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ivshmem.demo.guest_process import Guest
from ivshmem.demo.objects import ANSWER, BATCH, HEADER, HEADER_SIZE, Objects
from ivshmem.demo.result import DemoResult

FAULTS = ("corrupt", "drop", "swap")
_ANSWER_TIMEOUT = 3.0  # seconds without an answer, after the last message was sent, until the rest counts as lost
_PAYLOADS = 251  # number of different payloads; a prime, so that consecutive contents of an object differ


class Exchange:
    """Sends messages and receives answers in bursts, without waiting for the answer to each message."""

    def __init__(self, objects: Objects, guest: Guest, result: DemoResult, fault: str | None) -> None:
        """`fault`: inject one fault into the message in the middle: "corrupt", "drop", "swap", or None."""
        self._objects = objects
        self._guest = guest
        self._result = result
        self._fault = fault
        self._headers = objects.pool.view(HEADER)
        self._bytes = objects.pool.array
        self._noise = np.random.default_rng(result.messages).integers(0, 256, result.size + _PAYLOADS, np.uint8)
        self._filled = 0  # messages that were written to objects
        self._unsent = np.zeros(0, np.uint32)  # their indices that the ring has not accepted
        self._checksums: dict[int, int] = {}  # of the messages without an answer, by sequence number
        self._expected = 0  # sequence number of the next answer

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Exchange all messages. `on_progress` is called with the number of answers received so far."""
        result = self._result
        start = time.perf_counter()
        last_answer = time.monotonic()
        while result.answered < result.messages:
            sent = self._send()
            if self._receive():
                last_answer = time.monotonic()
                on_progress(result.answered)
            elif not sent:
                if not self._guest.alive() or time.monotonic() - last_answer > _ANSWER_TIMEOUT:
                    break
                time.sleep(0)  # yield: host and guest may share one CPU
        result.seconds = time.perf_counter() - start
        result.lost = result.messages - result.answered
        result.rate = result.answered / result.seconds
        result.bytes_per_second = result.rate * result.size
        if result.lost:
            result.faults.append(f"{result.lost} messages were not answered")

    def _send(self) -> bool:
        """Enqueue up to one burst; return True if the ring accepted a message."""
        if len(self._unsent) == 0 and self._filled < self._result.messages:
            self._unsent = self._fill(min(BATCH, self._result.messages - self._filled))
        sent = self._objects.to_guest.enqueue_burst(self._unsent) if len(self._unsent) else 0
        self._unsent = self._unsent[sent:]
        return sent > 0

    def _fill(self, n: int) -> np.ndarray[Any, Any]:
        """Allocate `n` objects, write the next messages to them and return their indices; none if the pool is empty."""
        indices = np.zeros(n, np.uint32)
        if self._objects.pool.get_bulk(indices) == 0:
            return indices[:0]
        size = self._result.size
        for sequence, index in enumerate(indices.tolist(), self._filled):
            payload = self._noise[sequence % _PAYLOADS : sequence % _PAYLOADS + size]
            self._bytes[index, HEADER_SIZE : HEADER_SIZE + size] = payload
            self._checksums[sequence] = checksum = zlib.crc32(payload.data)
            self._headers[index] = (sequence, checksum, size)
        indices = self._inject_fault(indices)
        self._filled += n
        return indices

    def _inject_fault(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Apply the fault if the burst contains the middle message; return the indices to send."""
        at = self._result.messages // 2 - self._filled
        if self._fault is None or not 0 <= at < len(indices):
            return indices
        if self._fault == "corrupt":
            self._bytes[indices[at], HEADER_SIZE] ^= 0xFF
        elif self._fault == "drop":
            self._objects.pool.put(int(indices[at]))
            return np.delete(indices, at)
        else:
            other = at - 1 if at else at + 1
            indices[[at, other]] = indices[[other, at]]
        return indices

    def _receive(self) -> int:
        """Dequeue up to one burst of answers, check them and return their number."""
        answers = np.zeros((BATCH, HEADER_SIZE), np.uint8)
        n = self._objects.to_host.dequeue_burst(answers)
        result = self._result
        for sequence, checksum, _ in answers[:n].view(ANSWER).reshape(n).tolist():
            result.answered += 1
            if sequence != self._expected:
                result.reordered += sequence < self._expected
                result.faults.append(f"answer {sequence} arrived, expected {self._expected}")
            self._expected = sequence + 1
            if self._checksums.pop(sequence, None) != checksum:
                result.corrupted += 1
                result.faults.append(f"message {sequence} arrived with a wrong checksum")
        return n
