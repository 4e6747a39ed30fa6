"""Requests that wait for an agent: first in, first out, and each leaves from anywhere in O(1)."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class WaitQueue(Generic[Item]):
    """A bounded queue. What was already let in once comes back at the head, whatever the bound."""

    __slots__ = ("_items", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._items: OrderedDict[Item, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """From the head to the tail. The queue must not change while it is walked."""
        return iter(self._items)

    def __contains__(self, item: Item) -> bool:
        return item in self._items

    def offer(self, item: Item) -> bool:
        """Put an item at the tail; False where the bound is reached."""
        if len(self._items) >= self.limit:
            return False
        self._items[item] = None
        return True

    def put_back(self, item: Item) -> None:
        """Put an item at the head."""
        self._items[item] = None
        self._items.move_to_end(item, last=False)

    def head(self) -> Item:
        """The item that is next. Raises IndexError where the queue is empty."""
        for item in self._items:
            return item
        raise IndexError("the queue is empty")

    def remove(self, item: Item) -> None:
        """Take an item out, wherever it stands. Raises KeyError where it is not here."""
        del self._items[item]
