"""Commands about feedback: what became of predictions, and whose labels are believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from homeostat.commands.options import HERE, Folder, Json, Reason, length, opened, show, time
from homeostat.domain.units import DAY_MS, iso

if TYPE_CHECKING:
    from homeostat.domain.feedback import FeedbackStanding

feedback = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What became of predictions: labels, ratings, events."
)


@feedback.command("add")
def feedback_add(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, Parquet or JSON Lines: id and label, or a column for each signal; source, at if known."
        ),
    ],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Labels, thumbs, ratings, amounts and events from a file: all of it or nothing; it may be added again.

    Example: homeostat feedback add labels.csv -p price
    """
    from homeostat import terminal
    from homeostat.engines.report.words import counted

    taken = opened(folder).feedback.add(file)
    told = f"{counted(taken.labels, 'label')} and {counted(taken.signals, 'signal')}"
    said = f"{told} taken, of {counted(taken.rows, 'row')}."
    show(taken, as_json, lambda: terminal.lines(said))


@feedback.command("status")
def feedback_status(
    last: Annotated[int, length("Of what came in this time.", shown="30d")] = 30 * DAY_MS,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """What came from each source, how far sources agree, and what is held back.

    Example: homeostat feedback status --last 90d -p price
    """
    from homeostat import terminal

    found = opened(folder).feedback.status(last)
    show(found, as_json, lambda: terminal.lines(*_told(found)))


Source = Annotated[str, typer.Argument(help="Whose labels; without one, of those that name nobody.")]
From = Annotated[int | None, time("--from", "Labels given from then on; by default since they became suspicious.")]


Class = Annotated[
    str, typer.Option("--class", help="Not of a source: of a class that the model does not know.", metavar="NAME")
]


@feedback.command("accept")
def feedback_accept(
    source: Source = "",
    start: From = None,
    new_class: Class = "",
    reason: Reason = "",
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """The labels of a source, or of a new class, are right after all: they are learned from, and count.

    Example: homeostat feedback accept clerk --from 2026-01-31 --reason "mended" -p price
    """
    from homeostat import terminal

    says = opened(folder).feedback
    told = says.accept_class(new_class, reason) if new_class else says.accept(source, start, reason)
    show(told, as_json, lambda: terminal.lines(told.text))


@feedback.command("reject")
def feedback_reject(
    source: Source = "",
    start: From = None,
    new_class: Class = "",
    reason: Reason = "",
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """The labels of a source, or of a new class, are wrong: nothing learns from them, until they are accepted.

    Example: homeostat feedback reject crowd --from 2026-01-31 --reason "a wrong form" -p price
    """
    from homeostat import terminal

    says = opened(folder).feedback
    told = says.reject_class(new_class, reason) if new_class else says.reject(source, start, reason)
    show(told, as_json, lambda: terminal.lines(told.text))


def _told(found: FeedbackStanding) -> Iterator[str]:
    from homeostat.engines.report.words import counted

    if not (found.sources or found.events):
        yield f"Nothing came since {iso(found.since_ms)}."
    for one in found.sources:
        told = f"{counted(one.labels, 'label')} of {counted(one.ids, 'prediction')}"
        yield f"{one.source or '(unnamed)'}: {told}, trust {one.trust:g}"
        yield f"  {one.corrected:,} corrected, {one.repeated:,} repeated, {one.late:,} late, {one.unknown:,} unknown"
        if one.shared:
            share = f"{one.agreed / one.shared:.0%} of {one.shared:,}"
            yield f"  agrees with other sources on {share}; overruled in {one.overruled:,}"
        if one.held:
            yield f"  {one.held:,} held back"
    for event in found.events:
        told = f"{event.name}: {counted(event.signals, 'signal')}"
        yield f"{told}, {event.by_key:,} of entities, {event.unknown:,} of unknown ids"
    for new in found.classes:
        yield f"New class {new.name!r}, {new.state}: {new}"
    for hold in found.holds:
        until = f" to {iso(hold.until_ms)}" if hold.until_ms else " on"
        what = "Rejected" if hold.rejected else "Held back" if hold.held else "Suspicious"
        yield f"{what}: {hold.source or '(unnamed)'} from {iso(hold.from_ms)}{until}: {hold.reason}"
