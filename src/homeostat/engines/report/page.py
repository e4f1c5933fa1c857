"""The page of a report: sentence, picture, table, folded details. One file, no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from homeostat.domain.gate import Verdict
from homeostat.engines.report import words


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in a table: its mark, and words (the verdict's own by default)."""

    verdict: Verdict
    text: str = ""
    kind: str = field(default="badge", init=False)

    @property
    def mark(self) -> str:
        return words.MARKS[self.verdict]


Cell = str | Badge


@dataclass(frozen=True, slots=True)
class Column:
    """`numeric` columns stand right, in tabular figures."""

    name: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    empty: str = "None."
    kind: str = field(default="table", init=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """`svg` comes from our own plots, which escape their text."""

    svg: Markup
    caption: str = ""
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True, slots=True)
class Code:
    """Shown as it is: a diff, a digest."""

    text: str
    kind: str = field(default="code", init=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True, slots=True)
class Details:
    """Folded until asked for."""

    summary: str
    blocks: Sequence[Block]
    kind: str = field(default="details", init=False)


Block = Table | Figure | Text | Code | Facts | Details


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    blocks: Sequence[Block]


_PAGES = Environment(
    loader=PackageLoader("homeostat.engines.report", "."),
    autoescape=True,  # data is shown, never obeyed
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(title: str, sentence: str, sections: Sequence[Section], *, verdict: Verdict | None = None) -> str:
    """HTML. `sentence` says what happened and what it means; `verdict` marks it."""
    badge = Badge(verdict) if verdict else None
    return _PAGES.get_template("page.html.jinja").render(title=title, sentence=sentence, badge=badge, sections=sections)
