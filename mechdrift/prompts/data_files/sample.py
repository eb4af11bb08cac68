"""So many rows of a stream of any length, drawn by their content, so that the order of the file is no matter."""

import hashlib
import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
MOST = 100_000  # rows that are kept: more than any tier asks, and a gigabyte at most


class Sample(Generic[T]):
    """At most so many items, whole units, in their order: of more, the units with the least hash."""

    def __init__(self, most: int) -> None:
        """An empty one."""
        self.most = most
        self.beyond = 0
        """How many items are not kept."""
        self._units: dict[str, list[tuple[int, T]]] = {}
        self._greatest: list[tuple[int, str]] = []
        self._limit: int | None = None
        self._kept = self._seen = 0

    def __contains__(self, unit: object) -> bool:
        """Whether a unit is kept so far."""
        return unit in self._units

    def add(self, unit: str, item: T, ranked_by: str | None = None) -> None:
        """One more item of a unit, which is drawn by its own content or by `ranked_by`."""
        self._seen += 1
        if unit not in self._units:
            digest = hashlib.sha256((unit if ranked_by is None else ranked_by).encode(errors="surrogatepass")).digest()
            rank = int.from_bytes(digest)
            if self._limit is not None and rank >= self._limit:
                self.beyond += 1
                return
            self._units[unit] = []
            heapq.heappush(self._greatest, (-rank, unit))
        self._units[unit].append((self._seen, item))
        self._kept += 1
        while self._kept > self.most and len(self._units) > 1:
            negative, last = heapq.heappop(self._greatest)
            self._limit = -negative
            dropped = len(self._units.pop(last))
            self.beyond += dropped
            self._kept -= dropped

    @property
    def items(self) -> list[T]:
        """What is kept, in the order in which it came."""
        numbered = [one for items in self._units.values() for one in items]
        return [item for _, item in sorted(numbered, key=lambda one: one[0])]
