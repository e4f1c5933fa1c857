"""How many requests may wait: learned from how long ticks take, so that a flood makes nobody's answer late."""

from __future__ import annotations

BURST = 8
"""Requests that may always wait: so many come at once by chance alone, below full load too."""
PATIENCE_US = 4_000
"""Less work than this is no overload, however many requests it is."""
SHARE = 0.9
"""Of the throughput that ever larger ticks would reach in the end."""
_WEIGHT = 0.02  # of the newest tick
_START = 128  # before any tick was seen
_VARIED = 0.2  # standard deviation of the sizes, as a share of their mean, that shows a slope
_OUTLIER = 4.0  # times what was expected: a pause of the machine, not the model's doing


class Limit:
    """An adaptive limit by the gradient of latency.

    A tick of b requests takes about a + c·b: a is paid once, c for each. Its throughput b / (a + c·b) has reached the
    share s of what it can ever be at b = s/(1 - s) · a/c; beyond that, more requests in a tick are little but later.
    So that many may wait, and `BURST` more; or what takes `PATIENCE_US`, if that is more; never over `most`.

    a and c are a line through the ticks seen, older ones weighing ever less. Ticks of one size say nothing about the
    slope: they move both in proportion.
    """

    def __init__(self, most: int) -> None:
        self._most, self._ticks = most, 0
        self._b = self._t = self._bb = self._bt = 0.0  # means, variance, covariance
        self.fixed_us = self.each_us = 0.0
        self.value = min(_START, most)

    def seen(self, requests: int, us: float) -> None:
        """A tick of so many requests took so long."""
        self._ticks += 1
        if self._ticks == 1:
            self._b, self._t = float(requests), us
            self.fixed_us, self.each_us = 0.9 * us, 0.1 * us / requests
            return
        us = min(us, _OUTLIER * (self._t + self.each_us * max(requests - self._b, 0.0)))
        weight = max(_WEIGHT, 1 / self._ticks)
        db, dt = requests - self._b, us - self._t
        self._b, self._t = self._b + weight * db, self._t + weight * dt
        self._bb = (1 - weight) * (self._bb + weight * db * db)
        self._bt = (1 - weight) * (self._bt + weight * db * dt)
        self._fit()
        self.value = self._allowed()

    def _fit(self) -> None:
        if self._bb > (_VARIED * self._b) ** 2 and self._bt > 0:
            self.each_us = min(self._bt / self._bb, self._t / self._b)
            self.fixed_us = self._t - self.each_us * self._b
            return
        scale = self._t / (self.fixed_us + self.each_us * self._b)
        self.fixed_us, self.each_us = scale * self.fixed_us, scale * self.each_us

    def _allowed(self) -> int:
        each = max(self.each_us, 1e-3)
        gradient = BURST + SHARE / (1 - SHARE) * self.fixed_us / each
        patience = (PATIENCE_US - self.fixed_us) / each
        return int(min(max(gradient, patience), self._most))
