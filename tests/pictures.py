"""The picture of every state and move of a release, made from the rule. `python tests/pictures.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

from homeostat.domain.rollout import Status
from homeostat.engines.rollout import MOVES
from homeostat.engines.steps import KINDS

PATH = Path(__file__).parents[1] / "docs" / "release.svg"
OPEN = "open"
BOXES = {
    Status.QUEUED: (20, 60, 120, 44),
    Status.RUNNING: (220, 76, 400, 110),
    Status.WAITING: (220, 276, 400, 44),
    Status.PROMOTED: (760, 50, 150, 44),
    Status.ROLLED_BACK: (760, 140, 150, 44),
    Status.REJECTED: (760, 230, 150, 44),
    Status.SUPERSEDED: (760, 310, 150, 44),
}
"""x, y, width, height."""
ARROWS = {
    (Status.QUEUED, Status.RUNNING): ("M140 90 H214", 146, 84),
    (Status.QUEUED, Status.REJECTED): ("M60 104 V384 H728 V262 H754", 110, 378),
    (Status.QUEUED, Status.SUPERSEDED): ("M100 104 V404 H835 V360", 720, 398),
    (Status.RUNNING, Status.RUNNING): ("M480 76 V54 H400 V70", 408, 48),
    (Status.RUNNING, Status.WAITING): ("M320 186 V270", 328, 234),
    (Status.WAITING, Status.RUNNING): ("M500 276 V192", 508, 234),
    (OPEN, Status.PROMOTED): ("M640 72 H754", 650, 66),
    (OPEN, Status.ROLLED_BACK): ("M640 162 H754", 650, 156),
    (OPEN, Status.REJECTED): ("M640 246 H754", 650, 240),
    (OPEN, Status.SUPERSEDED): ("M640 332 H754", 650, 326),
    (Status.PROMOTED, Status.ROLLED_BACK): ("M835 94 V134", 843, 120),
}
"""A path, and where its word stands."""
STYLE = """
svg { color-scheme: light dark; font: 14px system-ui, sans-serif }
rect { fill: light-dark(#fff, #161b22); stroke: light-dark(#57606a, #8b949e); rx: 6px }
rect.step { stroke-dasharray: 3 3 }
path { fill: none; stroke: light-dark(#57606a, #8b949e); marker-end: url(#head) }
marker path { fill: light-dark(#57606a, #8b949e); stroke: none; marker-end: none }
text { fill: light-dark(#1f2328, #e6edf3) }
text.move { fill: light-dark(#0550ae, #79c0ff); font-size: 12px }
"""


def moves() -> dict[tuple[str, Status], str]:
    """From where, to where, how: what RUNNING and WAITING have in common leaves from both at once."""
    found = {(one, status): do.value for one, made in MOVES.items() for do, status in made.items()}
    both = {to: do for (one, to), do in found.items() if one is Status.RUNNING and not to.open}
    kept = {key: do for key, do in found.items() if not (key[0] in (Status.RUNNING, Status.WAITING) and key[1] in both)}
    assert all(found[Status.WAITING, to] == do for to, do in both.items())
    return {**kept, **{(OPEN, to): do for to, do in both.items()}}


def picture() -> str:
    """An SVG. KeyError, or AssertionError, when a state or a move has no place in it."""
    drawn = moves()
    assert set(drawn) == set(ARROWS)
    head = '<marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 930 420" role="img">',
        "<title>Every state and move of a release</title>",
        f"<style>{STYLE}</style>",
        f'<defs>{head}<path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        '<rect x="200" y="20" width="440" height="340"/>',
        _text(212, 40, OPEN),
        *(_box(status) for status in Status),
        *(_chip(number, kind) for number, kind in enumerate(KINDS)),
        *(_arrow(*ARROWS[key], do) for key, do in drawn.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(status: Status) -> str:
    x, y, width, height = BOXES[status]
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/>\n{_text(x + 12, y + 27, status.value)}'


def _chip(number: int, kind: str) -> str:
    x, y = 232 + number % 4 * 96, 116 + number // 4 * 34
    return f'<rect class="step" x="{x}" y="{y}" width="88" height="26"/>\n{_text(x + 10, y + 18, kind)}'


def _arrow(path: str, x: int, y: int, word: str) -> str:
    return f'<path d="{path}"/>\n{_text(x, y, word, "move")}'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{named}>{text}</text>'


if __name__ == "__main__":
    PATH.write_text(picture())
