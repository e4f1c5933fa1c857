"""How the tests of a span share its chance of a false alarm, so that none holds what it can't use.

Tests that ask one question of the same rows (has this column's distribution moved?) are nearly alike: their p-values
are joined by the harmonic mean (Wilson 2019, https://doi.org/10.1073/pnas.1814092116), so that a question counts once,
however many tests ask it. Counts that are rare can't reach every p: an alarm at p spends of such a test the largest
p-value at most p that its totals allow, and nothing where a column misses no value at all (Westfall and Wolfinger 1997,
Multiple tests with discrete distributions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.outcome import Found

VALUES = {"level": 0.5, "distribution": 0.25, "shape": 0.25}
"""The tests that all ask whether the distribution of a number has moved, and how much each weighs: that of a shift, the
commonest change, as much as the others together. Any other test is a question of its own."""
Key = tuple[str, str]
"""A column, and a test or a question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one test found in one column over the last `windows`, beside `reference` ("": all of it)."""

    windows: int
    found: Found
    size: Worth
    reference: str = ""

    @property
    def p(self) -> float:
        """Knowing how sure the wobble is."""
        return self.size.sure(self.found.p)

    def spends(self, p: float) -> float:
        """The chance that this test's p-value is at most `p`, without drift."""
        law = self.found.law
        if law is None:
            return p
        reached = float(law[law <= p].max(initial=0.0))
        return min(p, self.size.sure(reached)) if reached else 0.0


class Shared:
    """The tests of one span, by column and test. Of the false alarms it has a `share`; `more` tests ask besides."""

    def __init__(self, asked: Mapping[Key, Asked], share: float, more: int = 0) -> None:
        self.asked, self.share, self.more = asked, share, more
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
        """Of all columns, with the `more`."""
        return len(self._questions) + self.more

    def corrected(self, subject: str, test: str) -> float:
        """p of a test over all columns and spans: the chance that any of them shows as little without drift. 1 where
        as many tests that reach every p would leave no less."""
        p = max(self._alone[subject, test], self._joined[_question((subject, test))])
        if p * self.questions >= self.share:
            return 1.0
        spent = sum(max(self.asked[key].spends(p) for key in keys) for keys in self._questions.values())
        return (spent + p * self.more) / self.share


def _question(key: Key) -> Key:
    subject, test = key
    return subject, "values" if test in VALUES else test
