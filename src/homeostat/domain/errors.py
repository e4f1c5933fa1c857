"""Every error a caller may catch.

HomeostatError
 ├─ UsageError         what was asked can't be done as asked; the caller can mend it    (exit code 2)
 │   ├─ ConfigError    homeostat.yaml, or an overlay, is wrong
 │   ├─ DataError      a data file, column or label is wrong
 │   │   ├─ CheckFailed    the data broke its checks; nothing was registered
 │   │   └─ RequestRefused the data plane refuses a request
 │   ├─ PipelineError  the project's own Python code failed
 │   └─ NotFound       no such project, run, release, prediction
 ├─ Refused            a rule of the loop forbids it: a refused bundle, a second `up` (exit code 1)
 │   └─ Deposed        another control plane leads by now
 ├─ ServiceError       the data plane, or a server of a stream, could not answer        (exit code 2)
 │   └─ Unavailable    it can't be reached, or has no room; later may do
 └─ Corrupt            stored state does not match its checksum                         (exit code 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HomeostatError(Exception):
    """What is wrong, where, and the way out: at most three lines when printed."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", way_out: str = "") -> None:
        self.what, self.where, self.way_out = what, where, way_out
        super().__init__("\n".join(line for line in (what, where, way_out) if line))

    def __reduce__(self) -> tuple[Any, ...]:
        """From one process to another."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[HomeostatError], args: tuple[Any, ...], state: dict[str, Any]) -> HomeostatError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(HomeostatError):
    """What was asked can't be done as asked; the caller can mend it."""


class ConfigError(UsageError):
    """homeostat.yaml, or an overlay, is wrong."""


class DataError(UsageError):
    """A data file, column or label is wrong."""


class PipelineError(UsageError):
    """The project's own Python code failed."""


class NotFound(UsageError):
    """No such project, run, release or prediction."""


class Refused(HomeostatError):
    """A rule of the loop forbids it."""

    exit_code = 1


class Deposed(Refused):
    """Another control plane leads by now; nothing was written."""


class Corrupt(HomeostatError):
    """Stored state does not match its checksum."""


class ServiceError(HomeostatError):
    """The data plane, or a server of a stream, could not answer."""


class Unavailable(ServiceError):
    """It can't be reached, or has no room; later may do."""


class RequestRefused(DataError):
    """The data plane refuses a request. `rule` names what was broken, `field` and `record` (from 0) where."""

    def __init__(
        self,
        what: str,
        *,
        address: str,
        field: str = "",
        rule: str = "",
        record: int | None = None,
        way_out: str = "The model's metadata tells what it takes.",
    ) -> None:
        self.field, self.rule, self.record = field, rule, record
        place = "" if record is None else f"record {record} of "
        super().__init__(what, where=place + address, way_out=way_out)


class CheckFailed(DataError):
    """The data broke its checks. `failures` has one line a broken rule: column, rule, rows, examples."""

    def __init__(self, what: str, failures: Sequence[str]) -> None:
        self.failures = tuple(failures)
        shown = [f"  {line}" for line in self.failures[:10]]
        hidden = len(self.failures) - len(shown)
        if hidden > 0:
            shown.append(f"  and {hidden} more rules")
        super().__init__(what, where="\n".join(shown), way_out="Mend the data, or edit checks/ if the rule is wrong.")
