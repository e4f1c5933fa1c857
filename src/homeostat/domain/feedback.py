"""What callers tell of predictions, and what is made of it: sources of labels, rules, labels that are held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Literal

from homeostat.domain.schema import Value
from homeostat.domain.units import BasisPoints, Fraction, Millis, iso

STRICT = {"extra": "forbid"}
RULES = "rules"
"""The source of the labels that `feedback.rules` make."""
EXPLORE = "explore"
"""The signal by which the data plane writes down that a prediction is in the exploration slice; its value is the share
in force."""
UNNAMED = ""
"""The source of a label that names none."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A label for each prediction with an `event` that came `within` so long of it; or, without an event, for each
    prediction `after` so long. With `at_least` or `at_most` the last value of the event must be so; without, one that
    is not 0 is enough. The label is `label`, or follows from the `answer`: it was right, or wrong (of two classes)."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    label: Value = None
    event: str = ""
    within: Millis = 0
    after: Millis = 0
    at_least: float | None = None
    at_most: float | None = None
    answer: Literal["right", "wrong"] | None = None

    def __post_init__(self) -> None:
        if bool(self.event) != bool(self.within) or bool(self.event) == bool(self.after):
            raise ValueError("a rule has an event and within, as {event: purchase, within: 7d}, or after alone")
        if (self.label is None) == (self.answer is None):
            raise ValueError("a rule has a label, or says of the answer: right or wrong")
        if self.bounded and not self.event:
            raise ValueError("at_least and at_most are of an event's value")

    @property
    def bounded(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    def fits(self, value: float) -> bool:
        """Whether an event of this value counts."""
        if not self.bounded:
            return value != 0
        low, high = (-inf if self.at_least is None else self.at_least), (inf if self.at_most is None else self.at_most)
        return low <= value <= high

    @property
    def length_ms(self) -> int:
        return self.within or self.after

    def __str__(self) -> str:
        return f"{self.event} within" if self.event else "after"


@dataclass(frozen=True, slots=True)
class Exploration:
    """A random share of the predictions, on which the caller acts as if `answer` had been answered, whatever was."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    share: BasisPoints
    answer: Value

    def __post_init__(self) -> None:
        if not self.share or self.answer is None:
            raise ValueError("an exploration slice has a share above 0 and an answer, as {share: 2%, answer: approve}")


@dataclass(frozen=True, slots=True)
class FeedbackPolicy:
    """`sources`: who gives labels, and how far each is trusted (empty: anybody, all alike). `signals`: the lowest and
    highest value of a signal. `rules`: of those that fit a prediction the first counts. `on_suspicious`: labels that
    went wrong are held back, or learned, until a person decides. `selective`: which predictions get a label follows
    from what the model answers; then only labels in the `exploration` slice tell how good it is."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    sources: Mapping[str, Fraction] = field(default_factory=dict)
    signals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rules: tuple[LabelRule, ...] = ()
    on_suspicious: Literal["hold", "learn"] = "hold"
    selective: bool = False
    exploration: Exploration | None = None

    def __post_init__(self) -> None:
        if self.exploration and not self.selective:
            raise ValueError("an exploration slice is of use where labels are selective: add selective: true")
        wrong = [name for name, trust in self.sources.items() if not 0 < trust <= 1]
        if wrong:
            raise ValueError(f"the trust in {wrong[0]!r} must be above 0 and at most 1")
        turned = [name for name, (low, high) in self.signals.items() if low >= high]
        if turned:
            raise ValueError(f"the bounds of {turned[0]!r} must be [lowest, highest]")

    def takes(self, source: str) -> bool:
        """Whether labels of this source are wanted."""
        return not self.sources or source in self.sources

    @property
    def most_trusted(self) -> str:
        """Of those that give labels."""
        given = [name for name in self.sources if name != RULES]
        return max(given, key=lambda name: self.sources[name], default=UNNAMED)


@dataclass(frozen=True, slots=True)
class Hold:
    """Labels of `source` given in [from_ms, until_ms) (None: and all later ones) are suspicious. While `held` they are
    neither learned from nor counted. `rejected`: a person has decided so."""

    source: str
    from_ms: int
    until_ms: int | None
    reason: str
    held: bool = True
    rejected: bool = False

    def meets(self, start_ms: int, end_ms: int) -> bool:
        """It reaches into [start_ms, end_ms)."""
        return self.from_ms < end_ms and (self.until_ms is None or self.until_ms > start_ms)


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """The labels of one source. `ids`: predictions; `corrected`: whose label it changed; `repeated`: labels that said
    nothing new; `late`: came after the horizon; `unknown`: of no prediction in the log; `shared`: ids that another
    source labelled too, `agreed` of them alike; `overruled`: where another one counts."""

    source: str
    trust: float
    labels: int
    ids: int
    corrected: int
    repeated: int
    late: int
    unknown: int
    shared: int
    agreed: int
    overruled: int
    held: int


@dataclass(frozen=True, slots=True)
class EventStanding:
    """The signals of one name: `predictions` by id, `keys` by entity, `unknown` of no prediction in the log."""

    name: str
    signals: int
    by_key: int
    unknown: int


@dataclass(frozen=True, slots=True)
class NewClass:
    """A class that labels name and the model does not know: so many `predictions`, a `share` of those that were
    labelled since `first_ms`. `like`: the known class whose name is nearest, "" for none; `written_alike`: but for case
    and spaces it is the same. `often`: too often for a typing error. `state`: waiting (its labels do not count), found,
    accepted or rejected (by a person)."""

    name: str
    predictions: int
    share: float
    first_ms: int
    like: str
    written_alike: bool
    often: bool
    state: str
    example: str

    def __str__(self) -> str:
        like = f", written much like {self.like!r}" if self.like else ""
        since = f"since {iso(self.first_ms)}"
        some = "prediction" if self.predictions == 1 else "predictions"
        return f"labels of {self.predictions:,} {some} name it, {self.share:.1%} of those {since}{like}"


@dataclass(frozen=True, slots=True)
class FeedbackStanding:
    """What came since `since_ms`."""

    since_ms: int
    sources: tuple[SourceStanding, ...]
    events: tuple[EventStanding, ...]
    holds: tuple[Hold, ...]
    classes: tuple[NewClass, ...] = ()
