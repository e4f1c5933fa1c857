"""A release as Markdown, for a pull request: the sentence, what each lane says, what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeostat.engines.report import outlook as ahead
from homeostat.engines.report import words
from homeostat.engines.report.outlook import says
from homeostat.engines.report.release import ReleaseView, release_sentence


def release_markdown(view: ReleaseView) -> str:
    """The first screen of the page, in GitHub's Markdown."""
    rollout, outlook = view.rollout, view.outlook
    parts = [f"### Release {rollout.id} of {_safe(rollout.model)}", _safe(release_sentence(view))]
    lanes = [
        (says(one.name).title, words.verdict(one.verdict), one.reason, ahead.change(one, outlook))
        for one in view.latest
    ]
    parts += _table(("Lane", "verdict", "what was seen", "what would change it"), lanes)
    if outlook:
        turns = [(ahead.assumption(one.assumed), *ahead.after(one, rollout, outlook.now_ms)) for one in outlook.turns]
        parts += _table(("If the candidate", "the next move", "is expected"), turns)
    if view.backtest:
        parts += [_safe(f"Backtest: {view.backtest.sentence}"), "It cannot know:"]
        parts += ["\n".join(f"- {_safe(one)}" for one in view.backtest.result.cannot_know)]
    happened = [(words.time(event.at_ms), ahead.happened(event), event.text) for event in view.history]
    parts += _table(("When", "what", "why"), happened)
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["\n".join(_lines([head, ["---"] * len(head), *rows]))] if rows else []


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from (f"| {' | '.join(map(_safe, row))} |" for row in rows)


def _safe(text: str) -> str:
    """Data is shown, never obeyed: no markup, no end of a cell."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
