"""`homeostat predict`. It opens no whole project: a job that takes seconds should not take one to begin."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from homeostat.commands.options import HERE, Folder, Json, show


class Engine(StrEnum):
    """Where a batch job is done."""

    LOCAL = "local"
    RAY = "ray"
    SPARK = "spark"


class OnError(StrEnum):
    """What a batch job does with a row that breaks a rule."""

    FAIL = "fail"
    MARK = "mark"


def predict(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A CSV or Parquet file, a folder of them, or a Delta table.")
    ],
    out: Annotated[str, typer.Argument(help="A folder, or a Delta table: delta://scores.")],
    part_rows: Annotated[int, typer.Option(min=1, help="Rows of a part.")] = 100_000,
    log: Annotated[bool, typer.Option("--log", help="Keep the answers in the prediction log too.")] = False,
    on_error: Annotated[OnError, typer.Option(help="A row that breaks a rule ends the job, or is marked.")] = (
        OnError.FAIL
    ),
    engine: Annotated[Engine, typer.Option(help="Where the work is done.")] = Engine.LOCAL,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Score rows with the version that serves, here or in an object store (s3://, gs://, az://). Started again, it
    makes only what is missing.

    Example: homeostat predict s3://lake/cards delta://s3://lake/scores -p price
    """
    from homeostat import terminal
    from homeostat.batch import Terms
    from homeostat.config import read_policy
    from homeostat.wiring.batch import own_logs, predict_file

    root = folder.resolve()
    policy, terms = read_policy(root), Terms(part_rows, on_error.value)
    opened = partial(own_logs, root, policy) if log else None
    with terminal.progress("rows") as progress:
        result = predict_file(root, policy, source, out, terms, progress, engine=engine.value, logs=opened)
    show(result, as_json, lambda: terminal.predicted(result))
