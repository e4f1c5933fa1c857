"""Data checks: a pandera schema over all rows, every broken rule in one line."""

from __future__ import annotations

from typing import Any

import polars as pl

from homeostat.domain.errors import CheckFailed

_SHOWN = 3


def check(schema: Any, frame: pl.DataFrame) -> None:
    """Run every rule of the pandera `schema` over the rows. Errors: `CheckFailed` with a line a broken rule."""
    from pandera.errors import SchemaErrors  # late: half a second

    columns = [name for name in frame.columns if name in schema.columns]
    try:
        schema.validate(frame.select(columns), lazy=True)  # eager: on a LazyFrame only types would be checked
    except SchemaErrors as error:
        lines = [_line(one, frame) for one in error.schema_errors]
        rules = f"{len(lines)} rules" if len(lines) > 1 else "a rule"
        raise CheckFailed(f"the data broke {rules} of its checks; nothing was registered", lines) from None


def _line(error: Any, frame: pl.DataFrame) -> str:
    """`nswprice: in_range(0, 2): 3 rows: row 17 (9.5), row 40 (2.1), row 41 (2.2)`."""
    name = getattr(error.schema, "name", None) or "the table"
    rule = str(getattr(error.check, "error", None) or getattr(error.check, "name", None) or error.check)
    passed = error.check_output
    if not isinstance(passed, pl.DataFrame) or len(passed) != len(frame):
        return f"{name}: {rule}: {str(error).splitlines()[0]}"
    rows = (~passed[passed.columns[-1]].fill_null(True)).arg_true()
    examples = ", ".join(f"row {row + 1:,} ({frame[name][row]!r})" for row in rows[:_SHOWN].to_list())
    more = " …" if len(rows) > _SHOWN else ""
    return f"{name}: {rule}: {len(rows):,} row{'s' if len(rows) > 1 else ''}: {examples}{more}"
