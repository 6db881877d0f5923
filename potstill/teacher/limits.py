"""What holds requests back: the window of requests under way, the rates a minute, the budget."""

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass


class Window:
    """Adaptive concurrency (AIMD): each good answer opens the window a little, an overload halves
    it. It starts at the user's ceiling; one round trip of overload halves it once, however many
    requests it hit."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.size = float(ceiling)
        self.flying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = 0.0

    async def enter(self) -> None:
        """Waits for a place."""
        while self.flying >= int(self.size):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await place
        self.flying += 1

    def leave(self) -> None:
        """Gives the place back and lets as many look again as there are places."""
        self.flying -= 1
        places = int(self.size) - self.flying
        while places > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                places -= 1

    def good(self) -> None:
        """An answer came in."""
        self.size = min(self.ceiling, self.size + 1 / self.size)

    def bad(self, sent: float) -> None:
        """A request sent at `sent` (time.monotonic) met an overload."""
        if sent > self._cut_at:
            self.size = max(1.0, self.size / 2)
            self._cut_at = time.monotonic()


class Pace:
    """At most `per_minute` units a minute (None: no limit), in an even flow; a second's worth may
    go at once."""

    def __init__(self, per_minute: float | None) -> None:
        self._second = per_minute / 60 if per_minute else math.inf
        self._free_at = 0.0

    def due(self) -> float:
        """Seconds until what is reserved next may be used."""
        return max(0.0, self._free_at - time.monotonic())

    def reserve(self, amount: float = 1) -> float:
        """Takes `amount` units; returns the seconds to wait before using them."""
        wait = self.due()
        self._free_at = max(self._free_at, time.monotonic() - 1) + amount / self._second
        return wait

    def refund(self, amount: float) -> None:
        """Gives back what was reserved and not used; a negative amount takes more."""
        self._free_at -= amount / self._second


@dataclass
class Budget:
    """Money, in the unit of the prices (each for a million tokens). An unknown price makes every
    cost None, never 0."""

    price_in: float | None
    price_out: float | None
    cap: float | None
    price_cached: float | None = None  # of a prompt's tokens that were cached; None: price_in
    _reserved: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float, cached: float = 0) -> float | None:
        """What so many tokens cost, `cached` of those in having been cached."""
        if self.price_in is None or self.price_out is None:
            return None
        less = 0.0 if self.price_cached is None else self.price_in - self.price_cached
        return (tokens_in * self.price_in + tokens_out * self.price_out - cached * less) / 1e6

    def fits(self, most: float | None, spent: float) -> bool | None:
        """Whether a request that costs at most `most` may go now, `spent` being gone already: True
        reserves `most`, False says never, None says that it may once requests under way have come
        in for less than they might cost."""
        if self.cap is None or spent + self._reserved + (most or 0.0) <= self.cap:
            self._reserved += most or 0.0
            return True
        return None if self._reserved > 1e-12 else False

    def release(self, most: float | None) -> None:
        """Gives back the reservation `most`, since what the request cost is known."""
        self._reserved -= most or 0.0


def estimate(text: str) -> int:
    """Tokens that a text may have, rather too many: a third of its UTF-8 bytes, thus one for a
    Chinese character."""
    return len(text.encode("utf-8", "surrogatepass")) // 3 + 4
