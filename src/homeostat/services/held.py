"""What must not be learned from, as the journal has it."""

from __future__ import annotations

import msgspec

from homeostat.domain.quarantine import Fault
from homeostat.ports import Journal

HELD = "data.quarantined"


def quarantined(journal: Journal, model: str) -> dict[str, Fault]:
    """Key of the alert → the stretch that is not learned from. What a person has let through is not among them."""
    last = {event.subject: event for event in journal.read(model, HELD)}
    held = {key: event.body for key, event in last.items() if not event.body.get("accepted")}
    return {key: msgspec.convert(dict(body["fault"]), Fault) for key, body in held.items()}
