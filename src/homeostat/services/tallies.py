"""Profiles of what is served, made as the rows of the log pass into its table: nobody reads them a second time.

For each version that answers or is about to, by the hour. A version's first hour is left out: its beginning may have
passed uncounted. What can't be counted is left out too, and is counted from the log when its window is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from homeostat.domain.bundle import Bundle
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import PINNED, Role
from homeostat.domain.rollout import Arm
from homeostat.engines.answer import output_of
from homeostat.engines.drift.profile import Profile, Reference, profile
from homeostat.ports import Blobs, Router
from homeostat.services.scored import scored_by

_log = logging.getLogger("homeostat.log")


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts rows of the log in the cells of a version's reference. `hidden`: what the log does not hold as it was
    served."""

    version: int
    bundle: Bundle
    reference: Reference
    hidden: frozenset[str]

    def __call__(self, rows: pl.DataFrame) -> Profile:
        """Inputs of every answer, whoever gave it; and what this version would have answered."""
        tests = pl.col("release").str.starts_with(PINNED)
        answers = rows.filter((pl.col("role") == Role.ANSWER.value) & ~tests)
        inputs = answers["inputs"].struct.unnest() if len(answers) else pl.DataFrame()
        shown = set(inputs.columns) - self.hidden
        schema = self.bundle.schema
        columns = {name: inputs[name] if name in shown else pl.Series([None] * len(answers)) for name in schema.names}
        scored = scored_by(rows, self.version)
        causes = _causes(rows.filter(rows["role"] == Role.REJECTED.value).filter(~tests))
        return profile(self.reference, pl.DataFrame(columns), output_of(schema, scored), causes, schema.classes)


def _causes(refused: pl.DataFrame) -> dict[str, int]:
    """How many rows broke which rule."""
    if refused.is_empty():
        return {}
    counts = refused["label"].fill_null("unknown").value_counts()
    return dict(counts.sort("label").iter_rows())


class Tellers:
    """`ports.Census`, and its inverse."""

    def __init__(self, policy: Policy, router: Router, blobs: Blobs, load: Callable[[str], Bundle]) -> None:
        self.policy, self.router, self.blobs, self.load = policy, router, blobs, load
        self._counters: dict[str, Counter] = {}

    def __call__(self, model: str, held: bytes | None, rows: pl.DataFrame, /) -> bytes:
        before = _decoded(held)
        made = {}
        for arm in self._arms(model):
            if held is None or arm.bundle in before:
                try:
                    counted = self._counter(arm)(rows)
                except Exception:  # of whatever a bundle or a row may hold: the log must go on into its table
                    _log.exception("rows were not counted for version %d", arm.version)
                    continue
                known = [Profile.from_bytes(before[arm.bundle])] if arm.bundle in before else []
                made[arm.bundle] = Profile.total([*known, counted]).to_bytes()
        return msgspec.msgpack.encode(made)

    def _arms(self, model: str) -> Iterator[Arm]:
        routing = self.router.read()
        return iter(routing.in_force(model).arms if model in routing.routes else ())

    def _counter(self, arm: Arm) -> Counter:
        if arm.bundle not in self._counters:
            bundle = self.load(arm.bundle)
            known = Reference.from_bytes(self.blobs.get(bundle.files["profile"]))
            self._counters[arm.bundle] = Counter(arm.version, bundle, known, self.policy.log.hidden)
        return self._counters[arm.bundle]


def counted(hours: Sequence[bytes], bundle: str) -> list[Profile] | None:
    """What a version's hours hold. None: one of them was not counted for it."""
    found = [_decoded(hour).get(bundle) for hour in hours]
    return None if None in found else [Profile.from_bytes(one) for one in found if one is not None]


def _decoded(held: bytes | None) -> dict[str, bytes]:
    return msgspec.msgpack.decode(held, type=dict[str, bytes]) if held else {}
