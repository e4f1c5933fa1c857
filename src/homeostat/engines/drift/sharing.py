"""How all tests share the chance of a false alarm, so that none holds what it can't use.

Tests that ask one question of the same rows (has this column's distribution moved?) are nearly alike: their p-values
are joined by the harmonic mean (Wilson 2019, https://doi.org/10.1073/pnas.1814092116), so that a question counts once,
however many tests ask it. Counts that are rare can't reach every p: an alarm at p spends of such a test the largest
p-value at most p that its totals allow, and nothing where a column misses no value at all (Westfall and Wolfinger 1997,
Multiple tests with discrete distributions). So do tests whose least effect is surer than p anyhow: of many rows, as
merged windows have, they spend next to nothing, and windows alone have what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.outcome import Found

VALUES = {"level": 0.5, "distribution": 0.25, "shape": 0.25}
"""The tests that all ask whether the distribution of a number has moved, and how much each weighs: that of a shift, the
commonest change, as much as the others together. Any other test is a question of its own."""
Key = tuple[str, str]
"""A column, and a test or a question."""


@dataclass(frozen=True)
class Asked:
    """What one test found in one column over the last `windows`, beside `reference` ("": all of it)."""

    windows: int
    found: Found
    size: Worth
    reference: str = ""

    @cached_property
    def p(self) -> float:
        """Knowing how sure the wobble is."""
        return self.size.sure(self.found.p)

    def spends(self, p: float) -> float:
        """The chance that this test raises an alarm at `p`, without drift."""
        law = self.found.law
        if law is None:
            return min(p, self.size.sure(self.found.most))
        reached = map(self.size.sure, -np.sort(-law[law <= p]))
        return next((one for one in reached if one <= p), 0.0)


class Span:
    """The tests of so many windows, by column and test."""

    def __init__(self, asked: Mapping[Key, Asked]) -> None:
        self.asked = asked
        self._alone = {key: one.p for key, one in asked.items()}
        self._questions: dict[Key, list[Key]] = {}
        for key in asked:
            self._questions.setdefault(_question(key), []).append(key)
        self._joined = {of: self._together(keys) for of, keys in self._questions.items()}

    def _together(self, keys: Sequence[Key]) -> float:
        """One p-value of several tests of the same rows: their harmonic mean, which keeps its rate near an alarm
        whether they depend on each other or not."""
        weights = [VALUES.get(test, 1.0) for _, test in keys]
        odds = sum(weight / max(self._alone[key], 1e-300) for weight, key in zip(weights, keys, strict=True))
        return sum(weights) / odds

    @property
    def questions(self) -> int:
        """Of all columns."""
        return len(self._questions)

    def p(self, key: Key) -> float:
        """Of a test, and of its question."""
        return max(self._alone[key], self._joined[_question(key)])

    def spends(self, p: float) -> float:
        """The chance that any of its questions has an alarm at `p`, without drift."""
        return sum(max(self.asked[key].spends(p) for key in keys) for keys in self._questions.values())


class Shared:
    """All spans: an alarm at p in one of them is one at as large a part of its share in the others. `more` tests ask
    besides, of a window alone."""

    def __init__(self, spans: Mapping[int, Span], shares: Mapping[int, float], more: int = 0) -> None:
        self.spans, self.shares, self.more = spans, shares, more

    @property
    def questions(self) -> int:
        """Of a window alone, with the `more`."""
        return self.spans[1].questions + self.more

    def corrected(self, windows: int, key: Key) -> float:
        """p of a test over all columns and spans: the chance that any of them shows as little without drift. 1 where
        as many tests that reach every p would leave no less."""
        part = self.spans[windows].p(key) / self.shares[windows]
        if part * self.questions >= 1:
            return 1.0
        return sum(span.spends(self.shares[of] * part) for of, span in self.spans.items()) + (
            self.shares[1] * part * self.more
        )


def _question(key: Key) -> Key:
    subject, test = key
    return subject, "values" if test in VALUES else test
