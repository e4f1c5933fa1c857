"""Which inputs a version rests on, beside the version before it."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.domain.report import Needs
from homeostat.engines.report import words
from homeostat.engines.report.page import Block, Column, Table, Text

SHOWN = 20
"""Inputs that are listed."""
ALIKE = 0.7
"""The rank correlation from which on two versions rest on much the same inputs."""


def needs(found: Needs) -> Iterator[Block]:
    """Input by input, beside the version before."""
    yield Text(needs_sentence(found))
    ranked = sorted(found.importance, key=lambda name: -found.importance[name])
    columns = [Column("Input"), Column("loss rises by, without it", True), Column(f"in version {found.before}", True)]
    rows = [
        (name, words.number(found.importance[name]), words.number(found.earlier.get(name))) for name in ranked[:SHOWN]
    ]
    shown = [row if found.before else row[:2] for row in rows]
    yield Table(columns if found.before else columns[:2], shown, empty="Not measured: made by an older version.")


def needs_sentence(found: Needs) -> str:
    """Does it rest on the same inputs as the version before?"""
    if found.agreement is None:
        return "There is no version before to compare with."
    alike = f"rank correlation {words.number(found.agreement)} with version {found.before}"
    return f"It rests on {'much the same' if found.agreement >= ALIKE else 'other'} inputs: {alike}."
