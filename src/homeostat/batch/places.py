"""Where rows come from and answers go: a local path or the URL of an object store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from homeostat.domain.errors import DataError, UsageError
from homeostat.stores.files import write_atomic

if TYPE_CHECKING:
    from obstore.store import ObjectStore

DELTA = "delta://"
FILES = (".parquet", ".csv")
SCHEMES = ("s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://")
_SECRET = re.compile(r"\?\S+|<.*", re.DOTALL)
_ADVICE = re.compile(r"(Consider setting|You might want to try).*", re.DOTALL)  # to who programs the reader
_MARKS = re.compile(r"\x1b\[[0-9;]*m|↳")
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Place:
    """`address` is an absolute path, or a URL; `table`: a Delta table is there, or is to be made."""

    address: str
    table: bool


def place(given: str | Path) -> Place:
    """What a user wrote: a path, a URL, either with `delta://` before it. Errors: `UsageError`."""
    text = str(given)
    address = text.removeprefix(DELTA).removeprefix("file://")
    if "://" in address and not is_remote(address):
        known = ", ".join(("a path", DELTA, *SCHEMES))
        raise UsageError(f"no such kind of address: {address.partition('://')[0]}://", way_out=f"Known: {known}.")
    address = address.rstrip("/") if is_remote(address) else str(Path(address).resolve())
    return Place(address, text.startswith(DELTA) or is_table(address))


def is_remote(address: str) -> bool:
    return address.startswith(SCHEMES)


def is_table(address: str) -> bool:
    """A Delta table is there already: at least its first commit."""
    if address.endswith(FILES) or not (is_remote(address) or Path(address).is_dir()):
        return False
    with reaching(address):
        return DeltaTable.is_deltatable(address)


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """What storage and readers complain of becomes a `DataError`, without what could be a secret."""
    try:
        yield
    except (pl.exceptions.PolarsError, DeltaError, OSError) as error:
        raise DataError(f"can't be read or written: {told(error)}", where=address) from None
    except Exception as error:
        if type(error).__module__.startswith("obstore"):  # an extra: it may not be there to be named
            raise DataError(f"can't be read or written: {told(error)}", where=address) from None
        raise


def told(error: Exception) -> str:
    """One line. The query of a URL may be a signature, a server's own answer name a key: they are left out."""
    said = _ADVICE.sub("", _MARKS.sub("", str(error)))
    text = " ".join(_SECRET.sub("…", said).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class Files(Protocol):
    """A folder of files, here or in an object store."""

    def stamps(self) -> Mapping[str, str]:
        """Name → what changes when the content does. Folders are named too."""
        ...

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes) -> None:
        """All of it or nothing."""
        ...


def files(address: str) -> Files:
    """The folder at the address. Errors: `UsageError` when the extra for object stores is not installed."""
    return _Remote(address) if is_remote(address) else _Local(Path(address))


@dataclass(frozen=True, slots=True)
class _Local:
    folder: Path

    def stamps(self) -> Mapping[str, str]:
        if not self.folder.is_dir():
            return {}
        seen = ((path.name, path.stat()) for path in sorted(self.folder.iterdir()))
        return {name: f"{stat.st_size}-{stat.st_mtime_ns}" for name, stat in seen}

    def get(self, name: str) -> bytes | None:
        with reaching(str(self.folder)), suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return None

    def put(self, name: str, data: bytes) -> None:
        with reaching(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / name, data)


@dataclass(frozen=True, slots=True)
class _Remote:
    address: str

    def stamps(self) -> Mapping[str, str]:
        import obstore

        with reaching(self.address):
            found = obstore.list_with_delimiter(self._store())
        objects = {str(one["path"]): f"{one['size']}-{one['e_tag']}" for one in found["objects"]}
        return {**objects, **dict.fromkeys(found["common_prefixes"], "")}

    def get(self, name: str) -> bytes | None:
        import obstore

        with reaching(self.address), suppress(FileNotFoundError):
            return bytes(obstore.get(self._store(), name).bytes())
        return None

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with reaching(self.address):
            obstore.put(self._store(), name, data)

    def _store(self) -> ObjectStore:
        try:
            from obstore.store import from_url
        except ImportError:
            way_out = "pip install 'homeostat[objects]'"
            raise UsageError("object stores need one package more", where=self.address, way_out=way_out) from None
        with reaching(self.address):
            return from_url(self.address)
