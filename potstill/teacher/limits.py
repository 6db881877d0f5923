"""What holds requests back: the window of requests under way, the rates a minute, the budget."""

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass

# A window grows beyond a size that was too much only after a while: seconds, doubled each time
FIRST_PROBE, LAST_PROBE = 1.0, 30.0
MANY = 0.5  # from this share of late requests refused on, an endpoint is full for everybody
CHANCE = 0.3  # up to this share, refusals may be of another kind than load
OUTAGE = 0.9  # from this share on, it is no matter of how many are under way
BATCH = 0.5  # share of its price that a request costs in a batch
TRUSTED = 10.0  # seconds that a header alone holds requests back


@dataclass(eq=False, slots=True)
class Sent:
    """A request under way, or what came of it."""

    round: int  # of the window's
    refused: bool = False  # for load


class Window:
    """Adaptive concurrency: how many requests may be under way, at most the user's ceiling.

    In rounds of about two round trips it shrinks by the share of requests that were refused for
    load, and then looks whether fewer under way were refused less. Where they were not, the
    refusals are not load: the window opens again, and that share (`floor`) counts no more. Else it
    grows back, doubling after an outage and otherwise by one a round; beyond what was too much only
    now and then.

    A refusal comes sooner than an answer, so shares are of what was sent, not of what came back.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.size = float(ceiling)
        self.flying = self._most = 0  # under way; the most of them in this round
        self.floor = 0.0  # share refused that a smaller window does not lower
        self._late: deque[Sent] = deque(maxlen=min(32, max(2, ceiling)))
        self._waiting: deque[asyncio.Future[None]] = deque()
        # While few are under way to see whether it helps: size and excess before, and size after
        self._trial: tuple[float, float, float] | None = None
        self._full, self._doubling_to = math.inf, 0.0  # sizes: too much, at last; no outage's
        self._probe_at, self._probe = 0.0, FIRST_PROBE
        self._round = self._enough = 0
        self._crowded = False  # whether too many were refused at once for chance
        self._resize(ceiling)

    @property
    def many(self) -> bool:
        """Whether so many of the last requests were refused that the endpoint is full for all."""
        return sum(one.refused for one in self._late) >= MANY * (self._late.maxlen or 1)

    async def enter(self) -> None:
        """Waits for a place."""
        while self.flying >= int(self.size):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await place
        self.flying += 1
        self._most = max(self._most, self.flying)

    def leave(self) -> None:
        """Gives the place back and lets as many look again as there are places."""
        self.flying -= 1
        places = int(self.size) - self.flying
        while places > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                places -= 1

    def send(self) -> Sent:
        """Notes that a request goes out."""
        counts = self._sent < self._enough
        sent = Sent(self._round if counts else 0)
        self._sent += counts
        self._late.append(sent)
        return sent

    def done(self, sent: Sent, refused: bool) -> None:
        """A request came back, refused for load or not."""
        sent.refused = refused
        if sent.round != self._round:  # it says nothing of this size
            return
        self._done += 1
        self._refused += refused
        self._crowded = self._crowded or (refused and self.many)
        at_once = self._refused >= 8 and self._refused > MANY * self._sent and not self._trial
        if at_once or self._done >= 0.9 * self._enough:
            self._judge(self._sent, self._refused / self._sent)

    def _judge(self, count: int, share: float) -> None:
        """Ends a round of `count` requests of which that share was refused."""
        now, excess = time.monotonic(), share - self.floor
        noise = 1 / count + 2.5 * math.sqrt(self.floor * (1 - self.floor) / count)
        if self._trial:
            (size, before, left), self._trial = self._trial, None
            chance = self.floor + before <= CHANCE and not self._crowded
            if chance and before / 3 < excess < 2 * before:  # fewer made no difference
                self.floor = share
                self._resize(size)
                return
            if excess <= OUTAGE:
                self._full, self._probe_at = size, now + self._probe
                self._probe = min(LAST_PROBE, 2 * self._probe)
            if excess <= noise:
                self._resize(left)
                return
        elif 0 < excess <= noise and count < 32:
            self._enough *= 2  # too few to tell
            return
        if excess > noise:
            size = min(self.size, self._most)
            left = max(1.0, size * (1 - excess) * 0.95)
            outage = excess > OUTAGE  # it says nothing of how many are too many
            self._doubling_to = max(self._doubling_to, size / 2) if outage else 0.0
            before = math.inf if self._crowded else excess
            self._trial = (self.size, before, left) if size > 1 and not outage else None
            self._resize(max(1.0, min(left, size / 2)))
            return
        if self.floor:
            self.floor += (min(share, CHANCE) - self.floor) * count / (count + 400)
        grown = self.size
        if self._most >= int(self.size):  # else nothing is known of more
            fast = self.size < 0.9 * self._full
            grown = self.size + max(1.0, self.size / 8 if fast else 1.0)
            grown = self.size * 2 if self.size * 2 <= self._doubling_to else grown
        if grown >= self._full and now >= self._probe_at:
            self._full = math.inf
        self._resize(min(self.ceiling, grown) if grown < self._full else self.size)

    def _resize(self, size: float) -> None:
        """Begins a round."""
        self.size, self._round = size, self._round + 1
        self._sent = self._done = self._refused = 0
        self._crowded = False
        self._enough = max(4, int(2 * size))
        if self._trial:
            self._enough = max(self._enough, int(min(6 / self._trial[1], 400)))
        self._most = self.flying


class Pace:
    """At most `per_minute` units a minute (None: no limit), in an even flow; a second's worth may
    go at once. What the endpoint says of its own limit counts, too, until that turns out untrue."""

    def __init__(self, per_minute: float | None) -> None:
        self._second = per_minute / 60 if per_minute else math.inf
        self._told = math.inf  # units a second that the endpoint's headers leave
        self._free_at = self._open_at = 0.0  # the second: nothing before, as the headers say
        self._none: tuple[float, float] = (math.inf, 0.0)  # from when until when nothing is left
        self._trusted = True

    def due(self) -> float:
        """Seconds until what is reserved next may be used."""
        return max(0.0, max(self._free_at, self._open_at) - time.monotonic())

    def reserve(self, amount: float = 1) -> float:
        """Takes `amount` units; returns the seconds to wait before using them."""
        wait = self.due()
        self._free_at = max(self._free_at, time.monotonic() - 1) + self._seconds(amount)
        return wait

    def refund(self, amount: float) -> None:
        """Gives back what was reserved and not used; a negative amount takes more."""
        self._free_at -= self._seconds(amount)

    def told(self, left: float, seconds: float, ample: float, answered: float | None) -> None:
        """The endpoint says that `left` units may be used in the next `seconds`; from `ample` on
        that is no limit. `answered` is when the request went out that this came with (None: it was
        refused): an answer where nothing was left, and is left, shows that the headers lie."""
        now = time.monotonic()
        self._told = math.inf
        if left < 1:
            lie = answered is not None and self._none[0] < answered < self._none[1] - 1
            self._trusted &= not lie
            self._none = now, max(self._none[1], now + seconds)
        self._open_at = now + min(seconds, TRUSTED) if self._trusted and left < 1 else 0.0
        if self._trusted and seconds and 1 <= left < ample:
            self._told = max(left / seconds, 1 / TRUSTED)

    def _seconds(self, amount: float) -> float:
        return amount / min(self._second, self._told)


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
