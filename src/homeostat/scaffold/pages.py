"""The files of a new project, rendered from templates/."""

from __future__ import annotations

import json
import keyword
import math
import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from homeostat.domain.policy import Every
from homeostat.domain.schema import Kind, Task, Value
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.engines.infer import ColumnRule, classes_of
from homeostat.engines.metrics import METRICS
from homeostat.scaffold.look import Look
from homeostat.scaffold.settings import Settings

PAGES = {
    "homeostat.yaml": "homeostat.yaml.jinja",
    "pipelines/train.py": "train.py.jinja",
    "checks/schema.py": "schema.py.jinja",
    "tests/conftest.py": "conftest.py.jinja",
    "tests/data/test_rows.py": "test_rows.py.jinja",
    "tests/model/test_training.py": "test_training.py.jinja",
    "pytest.ini": "pytest.ini.jinja",
    "README.md": "README.md.jinja",
    ".gitignore": "gitignore.jinja",
    ".github/workflows/ml.yml": "ml.yml.jinja",
}
"""Path in the project → template."""

_UNITS = (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS), ("ms", 1))
_PLAIN = re.compile(r"(\.\./)*[A-Za-z_][A-Za-z0-9_./-]*")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # to some reader of YAML
_COMMENTS_FROM = 34


def pages(name: str, seen: Look, chosen: Settings) -> dict[str, str]:
    """Path → text."""
    values = {
        "name": name,
        "seen": seen,
        "data": seen.data,
        "set": chosen,
        "task": seen.task.value,
        "regression": seen.task is Task.REGRESSION,
        "classes": classes_of(seen.frame[seen.target.name], seen.task),
        "every": seen.data.time if isinstance(seen.data.time, Every) else None,
        "start": yaml_start(seen.data.time.start) if isinstance(seen.data.time, Every) else "",
        "estimator": "LGBMRegressor" if seen.task is Task.REGRESSION else "LGBMClassifier",
        "metrics": [known for known, metric in METRICS.items() if seen.task in metric.tasks and known != chosen.metric],
        "checks": checks_name(name),
        "columns": [*(column(rule) for rule in seen.inputs), target_column(seen)],
        "broken": broken(seen),
        "length": _seconds if seen.data.time is None else duration,
    }
    environment = _environment()
    return {path: environment.get_template(template).render(values) for path, template in PAGES.items()}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("homeostat.scaffold"),
        autoescape=False,  # no HTML is made here
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"py": python, "yaml": yaml, "says": says, "duration": duration, "number": number}
    return environment


def duration(ms: int) -> str:
    """As homeostat.yaml wants it, exact: 5,400,000 → `90m`; 0 → `0s`."""
    unit, size = next(((unit, size) for unit, size in _UNITS if ms and ms % size == 0), ("s", SECOND_MS))
    return f"{ms // size}{unit}"


def _seconds(ms: int) -> str:
    return f"{ms // SECOND_MS}s"


def says(line: str, comment: str) -> str:
    """A line of YAML and what a person wants to know of it."""
    return f"{line.ljust(_COMMENTS_FROM - 1)} # {comment}"


def yaml(text: str) -> str:
    """A text as YAML reads it back, in quotes where it needs them."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT
    return text if plain else json.dumps(text, ensure_ascii=False)


def yaml_start(start: str) -> str:
    """A bare date needs no quotes."""
    return start if re.fullmatch(r"\d{4}-\d\d-\d\d", start) else json.dumps(start)


def number(value: float) -> str:
    """100.0 → 100."""
    return str(int(value)) if value.is_integer() else repr(value)


def python(value: Value) -> str:
    """A literal, texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def checks_name(name: str) -> str:
    """price-2 → Price2: the name of the schema in checks/schema.py."""
    words = "".join(word.capitalize() for word in re.split(r"[_-]+", name))
    return words if words.isidentifier() and not keyword.iskeyword(words) else f"Rows{words}"


def column(rule: ColumnRule) -> str:
    """One line of checks/schema.py."""
    parts = [_DTYPES[rule.kind], *_checks(rule), *(["nullable=True"] if rule.nullable else [])]
    return _line(rule.name, parts)


_DTYPES = {Kind.NUMBER: "pl.Float64", Kind.INTEGER: "pl.Int64", Kind.BOOLEAN: "pl.Boolean", Kind.TEXT: "pl.String"}


def target_column(seen: Look) -> str:
    """A number keeps to its range, a class to the known ones; every row has one."""
    if seen.task is Task.REGRESSION:
        return column(seen.target)
    classes = classes_of(seen.frame[seen.target.name], seen.task)
    known = f"pa.Check.isin([{', '.join(python(value) for value in classes)}])"
    return _line(seen.target.name, [_DTYPES[seen.target.kind], *([] if seen.target.kind is Kind.BOOLEAN else [known])])


def _line(name: str, parts: list[str]) -> str:
    return f"{python(name)}: pa.Column({', '.join(parts)}),"


def _checks(rule: ColumnRule) -> list[str]:
    if rule.values is not None:
        return [f"pa.Check.isin([{', '.join(python(value) for value in rule.values)}])"]
    low, high = bounds(rule)
    if low is not None and high is not None:
        return [f"pa.Check.in_range({low}, {high})"]
    return [f"pa.Check.{name}({bound})" for name, bound in (("ge", low), ("le", high)) if bound is not None]


def bounds(rule: ColumnRule) -> tuple[float | None, float | None]:
    """The range, rounded outward to a hundredth of its width (or so): -0.35471 … 1.22036 → -0.36 … 1.23."""
    low, high = rule.low, rule.high
    if low is not None and high is not None and math.isfinite(high - low):
        digits = 2 - math.floor(math.log10(high - low))
        step = 10.0**-digits
        low, high = round(math.floor(low / step) * step, digits), round(math.ceil(high / step) * step, digits)
    if rule.kind is Kind.INTEGER:
        return (None if low is None else math.floor(low)), (None if high is None else math.ceil(high))
    return low, high


def broken(seen: Look) -> list[tuple[str, str]]:
    """(column, a Python literal that its check refuses): one of each sort."""
    ranged = [(rule.name, python(_beyond(rule))) for rule in seen.inputs if rule.high is not None]
    listed = [(rule.name, python("no such value")) for rule in seen.inputs if rule.values is not None]
    return [*ranged[:1], *listed[:1], (seen.target.name, "None")]


def _beyond(rule: ColumnRule) -> float:
    low, high = bounds(rule)
    assert high is not None
    return high + (1 if low is None else max(1, math.ceil(high - low)) if rule.kind is Kind.INTEGER else high - low)
