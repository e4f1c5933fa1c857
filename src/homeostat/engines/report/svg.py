"""SVG elements. Text and attributes are escaped: data can't become markup."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def tag(name: str, /, *content: str, **attributes: object) -> Markup:
    """`tag("line", x1=0, class_="axis")`; `_` in a name stands for `-`, a final one keeps a Python keyword apart.
    Floats are written with one decimal."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value)) for key, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, join(content), Markup(name))


def join(parts: Iterable[str]) -> Markup:
    return Markup("").join(escape(part) for part in parts)


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, class_: str = "", anchor: str = "start") -> Markup:
    return tag("text", words, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")
    return tag("path", d=d, class_=class_)


def mark(kind: str, x: float, y: float, size: float = 4) -> Markup:
    """The shape of a verdict or of an event: dot, triangle, ring, cross; a small square for a plain note."""
    s = float(size)
    if kind == "harm":
        return path([(x, y - s), (x + s, y + 0.8 * s), (x - s, y + 0.8 * s)], "mark harm", closed=True)
    if kind == "invalid":
        d = f"M{x - s:.1f} {y - s:.1f}L{x + s:.1f} {y + s:.1f}M{x - s:.1f} {y + s:.1f}L{x + s:.1f} {y - s:.1f}"
        return tag("path", d=d, class_="mark invalid")
    if kind == "note":
        return tag("rect", x=x - s / 2, y=y - s / 2, width=s, height=s, class_="mark note")
    return tag("circle", cx=float(x), cy=float(y), r=s * 0.85, class_=f"mark {kind}")


def titled(title: str, *content: str, class_: str = "hit") -> Markup:
    """A group whose exact value shows on hover, and is read aloud."""
    return tag("g", tag("title", title), *content, class_=class_)


def picture(width: float, height: float, label: str, *content: str) -> Markup:
    """The whole drawing; `label` says in words what it shows."""
    return tag(
        "svg",
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        style=f"min-width:{min(width, 560):g}px;max-width:{width:g}px",
    )
