"""Who holds how much of one bounded place, and whose turn it is to leave it.

The one who holds the most leaves first, and of what he holds that which was used longest ago. So nobody can push out
what belongs to others, unless they hold more than he does.

Each tenant stands in a heap under the most that he may hold; that number is put right only when it comes to the top.
Putting something costs O(log tenants), amortized, and everything else a look or two into dictionaries.
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

#: Organization, stage and project of what is kept.
Tenant = tuple[str, ...]

#: The heap is made anew where it holds so many times more than there are tenants.
_STALE_TIMES: Final = 4
_STALE_MIN: Final = 64


class _Holding:
    """What one tenant holds, the least recently used first."""

    __slots__ = ("bytes", "listed", "sizes", "tenant")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.bytes = 0
        #: Under which number he stands in the heap, which is never less than ``bytes``; others of him there are stale.
        self.listed = 0
        self.sizes: OrderedDict[bytes, int] = OrderedDict()


class Shelf:
    """Sizes by key and tenant. Whoever owns it says how much it may hold, and calls ``victim`` where that is more."""

    __slots__ = ("_count", "_heap", "_holdings", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._holdings: dict[Tenant, _Holding] = {}
        self._heap: list[tuple[int, int, _Holding]] = []
        #: Tells equal numbers in the heap apart.
        self._count = 0

    def put(self, key: bytes, tenant: Tenant, size: int) -> None:
        """Add a key that is not on the shelf, as the most recently used of its tenant."""
        holding = self._holdings.get(tenant)
        if holding is None:
            holding = self._holdings[tenant] = _Holding(tenant)
        holding.sizes[key] = size
        holding.bytes += size
        self.bytes += size
        if holding.bytes > holding.listed:
            holding.listed = holding.bytes
            self._count += 1
            heappush(self._heap, (-holding.bytes, self._count, holding))
            if len(self._heap) > _STALE_MIN + _STALE_TIMES * len(self._holdings):
                self._clean()

    def touch(self, key: bytes, tenant: Tenant) -> None:
        """A key was used just now."""
        self._holdings[tenant].sizes.move_to_end(key)

    def remove(self, key: bytes, tenant: Tenant) -> None:
        """Take a key off the shelf."""
        holding = self._holdings[tenant]
        size = holding.sizes.pop(key)
        holding.bytes -= size
        self.bytes -= size
        if not holding.sizes:
            holding.listed = 0
            del self._holdings[tenant]

    def victim(self, newcomer: Tenant) -> bytes:
        """The key that has to leave so that ``newcomer`` has room; where several hold the most, his own.

        There must be one on the shelf.
        """
        while True:
            negative, number, most = self._heap[0]
            if -negative != most.listed:
                heappop(self._heap)
            elif most.bytes < most.listed:
                most.listed = most.bytes
                heapreplace(self._heap, (-most.bytes, number, most))
            else:
                break
        own = self._holdings.get(newcomer)
        if own is not None and own.bytes == most.bytes:
            most = own
        return next(iter(most.sizes))

    def held_by(self, tenant: Tenant) -> int:
        """Bytes that a tenant holds."""
        holding = self._holdings.get(tenant)
        return holding.bytes if holding is not None else 0

    def _clean(self) -> None:
        for holding in self._holdings.values():
            holding.listed = holding.bytes
        self._heap = [(-each.bytes, number, each) for number, each in enumerate(self._holdings.values())]
        self._count = len(self._heap)
        heapify(self._heap)
