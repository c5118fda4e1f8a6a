# SPDX-License-Identifier: BSD-3-Clause
"""Probe observer: the interface through which the prober passes its results to an Eal."""

from __future__ import annotations

from collections.abc import Iterable

from eal.metadata.records import Entry
from eal.probe.events import Event
from eal.probe.share import Share


class ProbeObserver:
    """Receives the prober's results; this base class ignores them."""

    def find_in_use(self, entries: Iterable[Entry]) -> tuple[Entry, str] | None:
        """Return the first of these objects whose kind and name are in use outside shares, and its holder, or None."""
        return None

    def publish(self, shares: list[Share]) -> None:
        """Use this list of shares from now on; the list itself never changes."""

    def revoke(self, share: Share, code: int) -> None:
        """Refuse, with this errno, the objects of the share that no other share contains."""

    def report(self, event: Event) -> None:
        """Deliver an event to the watches."""
