"""The columns as Python: the lines of checks/schema.py, and values that they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from homeostat.domain.schema import Kind, Task, Value
from homeostat.engines.infer import ColumnRule, classes_of
from homeostat.scaffold.look import Look

_DTYPES = {Kind.NUMBER: "pl.Float64", Kind.INTEGER: "pl.Int64", Kind.BOOLEAN: "pl.Boolean", Kind.TEXT: "pl.String"}
_INDENT = " " * 8
_WIDTH = 112 - len(_INDENT)
_ENDLESS = 1e300
_INT64 = 2**63 - 1


def python(value: Value) -> str:
    """A literal, texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def checks_of(seen: Look) -> list[str]:
    """A column a line, the target last; a long list of texts goes over several."""
    return [*(_column(rule) for rule in seen.inputs), _target(seen)]


def broken(seen: Look) -> list[tuple[str, str]]:
    """(column, a Python literal that its check refuses): one of each sort."""
    ranged = [
        (rule.name, python(_beyond(rule.kind, top))) for rule in seen.inputs if (top := bounds(rule)[1]) is not None
    ]
    listed = [(rule.name, python("no such value")) for rule in seen.inputs if rule.values is not None]
    return [*ranged[:1], *listed[:1], (seen.target.name, "None")]


def _beyond(kind: Kind, top: float) -> float:
    return top + 1 if kind is Kind.INTEGER else round(top + abs(top) + 1, 0)


def bounds(rule: ColumnRule) -> tuple[float | None, float | None]:
    """The range, rounded outward to about a hundredth of its width: -0.35471 … 1.22036 → -0.36 … 1.23. A bound that
    no number of the column's type can pass is None."""
    low, high = rule.low, rule.high
    if low is not None and high is not None and 1 / _ENDLESS < high - low < _ENDLESS:
        digits = 2 - math.floor(math.log10(high - low))
        step = 10.0**-digits
        low, high = round(math.floor(low / step) * step, digits), round(math.ceil(high / step) * step, digits)
    if rule.kind is Kind.INTEGER:
        low, high = low if low is None else math.floor(low), high if high is None else math.ceil(high)
    most = _INT64 if rule.kind is Kind.INTEGER else _ENDLESS
    return low if low is not None and low > -most else None, high if high is not None and high < most else None


def _column(rule: ColumnRule) -> str:
    return _line(rule.name, rule.kind, rule.values, _range(rule), rule.nullable)


def _target(seen: Look) -> str:
    """A number keeps to its range, one of two classes to the known ones; more may appear. Every row has one."""
    target = seen.target
    if seen.task is Task.MULTICLASS:
        return _line(target.name, target.kind, None, "", False)
    if seen.task is Task.REGRESSION or target.kind is Kind.BOOLEAN:
        return _column(target)
    return _line(target.name, target.kind, classes_of(seen.frame[target.name], seen.task), "", False)


def _range(rule: ColumnRule) -> str:
    low, high = bounds(rule)
    if low is not None and high is not None:
        return f"pa.Check.in_range({low}, {high})"
    return f"pa.Check.ge({low})" if low is not None else f"pa.Check.le({high})" if high is not None else ""


def _line(name: str, kind: Kind, values: Sequence[Value] | None, limits: str, nullable: bool) -> str:
    listed = f"pa.Check.isin([{', '.join(map(python, values))}])" if values else ""
    parts = [part for part in (_DTYPES[kind], listed or limits, "nullable=True" if nullable else "") if part]
    line = f"{python(name)}: pa.Column({', '.join(parts)}),"
    if len(line) <= _WIDTH or not values:
        return line
    rows = "\n".join(f"{_INDENT}        {row}" for row in _filled([python(value) for value in values]))
    parts[1] = f"pa.Check.isin([\n{rows}\n{_INDENT}    ])"
    inner = "\n".join(f"{_INDENT}    {part}," for part in parts)
    return f"{python(name)}: pa.Column(\n{inner}\n{_INDENT}),"


def _filled(words: Sequence[str]) -> list[str]:
    """Lines as long as the page is wide."""
    rows = [""]
    for word in words:
        if rows[-1] and len(rows[-1]) + len(word) > _WIDTH - 12:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word},".strip()
    return rows
