"""What one tick has to answer for one model: its requests, from decoded to answered.

Nearly all requests ask for one record each and say nothing unusual. These stay together, column by column, from
decoding to their answers; one about which anything is unusual is looked at by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import msgspec

from homeostat.serving.columns import joined
from homeostat.serving.messages import Answered, Ask, Refusal, Response, Row, Singles
from homeostat.serving.meter import Counted
from homeostat.serving.score import OK, Batch, Scored, Served, gather


class Group(msgspec.Struct, gc=False):
    """Every row has an id by now. `traces`: prediction id → trace id, of the requests that have one."""

    served: Served
    asks: list[Ask]
    singles: Singles | None = None
    traces: dict[str, str] = {}

    def add(self, singles: Singles, ids: Iterator[str]) -> None:
        """Rows that have no id get one of `ids`."""
        named, n = singles.ids, len(singles.ids)
        fresh = named.count(None) == n
        singles.ids = list(islice(ids, n)) if fresh else [name or next(ids) for name in named]
        self.singles = singles

    @property
    def at(self) -> list[int]:
        """The places of its requests in the tick."""
        together = self.singles.at if self.singles else []
        return [*together, *(ask.at for ask in self.asks)] if self.asks else together

    def checked(self) -> Batch | None:
        """The rows of all requests that are sound; the others are refused. None where no row is left."""
        batch = self._gathered()
        if batch is None or not batch.faults:
            return batch
        self._part()
        for ask in self.asks:
            bad = next((row for row in range(len(ask.ids)) if ask.start + row in batch.faults), None)
            if ask.refusal is None and bad is not None:
                fault = batch.faults[ask.start + bad]
                ask.refusal = Refusal(422, fault.message, rule=fault.rule, name=fault.field, record=bad)
        return self._gathered()

    def answered(self, batch: Batch, scored: Scored) -> Answered:
        """What is told of the rows."""
        served = self.served
        return Answered(
            served.route.release,
            scored.version,
            batch.ids,
            scored.score,
            scored.label,
            scored.scores,
            served.typed,
            served.champion.schema.classes,
            scored.status.count(OK) == len(batch.ids),
            served.others,
        )

    def encode(self, answered: Answered | None, responses: list[Response | None]) -> None:
        """Put the responses in their places."""
        if self.singles and answered:
            if answered.whole and answered.alike and not answered.explored:  # nearly always
                for at, response in zip(self.singles.at, self.singles.codec.alone(answered), strict=False):
                    responses[at] = response
            else:
                self._part()
        for ask in self.asks:
            if ask.refusal is None and answered and (answered.whole or None not in answered.score[ask.part]):
                responses[ask.at] = response = ask.codec.encode(ask, answered)
                if answered.explored:
                    answered.mark(ask.part, response)
                continue
            refusal = ask.refusal or Refusal(500, "the model could not answer", rule="model")
            refusal.ids = ask.ids
            responses[ask.at] = ask.codec.refuse(refusal)

    def refuse(self, failure: Refusal, responses: list[Response | None]) -> None:
        """All of them."""
        self._part()
        for ask in self.asks:
            responses[ask.at] = ask.codec.refuse(failure)

    def _part(self) -> None:
        """Look at each request by itself."""
        if self.singles:
            self.asks = [*self.singles.apart(len(self.served.champion.schema.fields)), *self.asks]
            self.singles = None

    def _gathered(self) -> Batch | None:
        singles = self.singles
        if singles and not self.asks:  # nearly always
            return gather(self.served.champion, singles.rows, singles.ids, singles.keys)
        parts: list[Sequence[Row]] = [singles.rows] if singles else []
        ids: list[str] = list(singles.ids) if singles else []
        keys: list[str | None] = list(singles.keys) if singles else []
        for ask in self.asks:
            if ask.refusal is None:
                ask.start = len(ids)
                ids += ask.ids
                parts.append(ask.rows)
                keys += ask.keys
        return gather(self.served.champion, joined(parts), ids, keys) if parts else None


def tally(groups: Collection[Group], responses: Sequence[Response], counted: Counted) -> None:
    """By status; what is no prediction under no model."""
    left = len(responses)
    for group in groups:
        places = group.at
        whole = len(places) == len(responses)  # nearly always
        statuses = [one.status for one in responses] if whole else [responses[at].status for at in places]
        model, release, first = group.served.model, group.served.route.release, statuses[0]
        left -= len(places)
        if statuses.count(first) == len(places):
            counted.append((model, release, first, len(places)))
        else:
            counted += [(model, release, status, n) for status, n in Counter(statuses).items()]
    if left:
        asked = {at for group in groups for at in group.at}
        counted += [("", "", response.status, 1) for i, response in enumerate(responses) if i not in asked]
