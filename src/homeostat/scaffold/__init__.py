"""`homeostat init`: a data file → a project that passes its own tests."""

from __future__ import annotations

from pathlib import Path

from homeostat.domain.dataset import EVENT_MS
from homeostat.scaffold.advice import advice
from homeostat.scaffold.look import look, project_name
from homeostat.scaffold.options import Made, Options
from homeostat.scaffold.pages import PAGES, pages
from homeostat.scaffold.settings import settings
from homeostat.scaffold.write import refuse_existing, write_all

__all__ = ["Made", "Options", "init"]


def init(root: Path, options: Options) -> Made:
    """Write a project into folder `root`. All of it is rendered before the first file is written; when a write fails,
    what was written goes away again. No file that is there is touched.

    Errors: `UsageError`, `DataError`.
    """
    name = project_name(root)
    refuse_existing(root, list(PAGES))
    seen = look(root, options)
    chosen = settings(seen)
    texts = pages(name, seen, chosen)
    write_all(root, texts)
    times = seen.frame[EVENT_MS]
    return Made(
        root=root,
        files=tuple(texts),
        name=name,
        task=seen.task,
        metric=chosen.metric,
        rows=len(seen.frame),
        fields=tuple(rule.name for rule in seen.inputs),
        from_ms=int(times[0]),
        until_ms=int(times[-1]),
        notes=advice(name, root, seen, chosen),
    )
