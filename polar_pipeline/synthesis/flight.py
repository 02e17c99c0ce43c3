"""The flight: how many requests may be on their way at once.

Half as many when more than one in ten is refused, one more after as many answers as there may be requests (additive increase, multiplicative
decrease: Chiu and Jain 1989), and never more than the endpoint says are left. A refusal now and then, which busy endpoints
hand out whatever the load, cuts nothing. One for all workers of a process.
"""

import asyncio
import math
import time

_TOLERATED = 0.1  # refusals per answer


class Flight:
    """Enter it to send (`async with`), and tell it how that ended."""

    def __init__(self, most: int) -> None:
        self._most, self._limit, self._left = most, float(most), math.inf
        self._flying, self._cut = 0, 0.0
        self._credit = _TOLERATED * most  # refusals that answers make up for
        self._room = asyncio.Condition()

    @property
    def allowed(self) -> int:
        """Requests that may be on their way now; one always may, or nobody would learn that there is room again."""
        return max(int(min(self._limit, self._left)), 1)

    async def __aenter__(self) -> None:
        """Wait for room."""
        async with self._room:
            await self._room.wait_for(lambda: self._flying < self.allowed)
            self._flying += 1

    async def __aexit__(self, *_: object) -> None:
        """Make room."""
        async with self._room:
            self._flying -= 1
            self._room.notify(max(self.allowed - self._flying, 0))

    def refused(self, sent: float) -> None:
        """A request sent at this time (monotonic) was refused; those that left together with it count once."""
        self._credit -= 1
        if self._credit < 0 and sent > self._cut:
            self._limit, self._cut = max(self._limit / 2, 1.0), time.monotonic()

    def answered(self) -> None:
        """A request was answered."""
        self._limit = min(self._limit + 1 / self._limit, float(self._most))
        self._credit = min(max(self._credit, 0.0) + _TOLERATED, _TOLERATED * self._limit)

    def left(self, remaining: float) -> None:
        """How many more the endpoint takes in its window, infinity when it did not say: then what it said before holds."""
        self._left = remaining if math.isfinite(remaining) else self._left
