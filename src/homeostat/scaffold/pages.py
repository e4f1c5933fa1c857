"""The files of a new project, rendered from templates/."""

from __future__ import annotations

import json
import keyword
import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from homeostat.domain.policy import Every
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.engines.metrics import METRICS
from homeostat.scaffold.columns import broken, checks_of, python
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
        "every": seen.data.time if isinstance(seen.data.time, Every) else None,
        "start": yaml_start(seen.data.time.start) if isinstance(seen.data.time, Every) else "",
        "estimator": "LGBMRegressor" if seen.task is Task.REGRESSION else "LGBMClassifier",
        "metrics": [known for known, metric in METRICS.items() if seen.task in metric.tasks and known != chosen.metric],
        "checks": checks_name(name),
        "columns": checks_of(seen),
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
    return f"{line.ljust(_COMMENTS_FROM - 2)}  # {comment}"


def yaml(text: str) -> str:
    """A text as YAML reads it back, in quotes where it needs them."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(mark if mark.isprintable() else f"\\U{ord(mark):08x}" for mark in quoted)


def yaml_start(start: str) -> str:
    """A bare date needs no quotes."""
    return start if re.fullmatch(r"\d{4}-\d\d-\d\d", start) else json.dumps(start)


def number(value: float) -> str:
    """100.0 → 100."""
    return str(int(value)) if value.is_integer() else repr(value)


def checks_name(name: str) -> str:
    """price-2 → Price2: the name of the schema in checks/schema.py."""
    words = "".join(word.capitalize() for word in re.split(r"[_-]+", name))
    return words if words.isidentifier() and not keyword.iskeyword(words) else f"Rows{words}"
