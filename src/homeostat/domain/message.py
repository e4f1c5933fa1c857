"""What goes through a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Message:
    """One message as taken. `place` says where it lies, the same at every delivery: topic-partition-offset, or stream
    and entry id. `mark` is for its stream alone."""

    place: str
    body: bytes
    mark: Any = None


@dataclass(slots=True)
class Output:
    """One message to write. `id` names it: a reader that keeps the first of each id sees every input once. `dead`: it
    goes to the dead letters."""

    id: str
    body: bytes
    dead: bool = False


@dataclass(slots=True)
class Standing:
    """What a stream knows of itself. `lag`: messages that this consumer still has before it, None where the server
    can't tell; `rebalances`: how often its share of the topic changed; `reclaimed`: messages taken over from consumers
    that died with them in hand."""

    lag: int | None = None
    rebalances: int = 0
    reclaimed: int = 0
