"""Batch scoring: rows of files or of a Delta table in, files or rows of a Delta table out; memory stays flat, and a job
that was stopped goes on.

A part is a stretch of rows of one table. It is written whole or not at all, under a name that follows from its place,
and its prediction ids follow from the job and the row: the same job again makes only the parts that are not there.
"""

from homeostat.batch.job import OnError
from homeostat.batch.record import Logs
from homeostat.batch.run import PART_ROWS, Batch, BatchResult, Terms
from homeostat.batch.work import Shipped

__all__ = [
    "PART_ROWS",
    "Batch",
    "BatchResult",
    "Logs",
    "OnError",
    "Shipped",
    "Terms",
]
