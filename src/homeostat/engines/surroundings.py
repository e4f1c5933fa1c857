"""What is not the same as before around a model: packages, Python, the machine; data, code and parameters of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from homeostat.domain.run import CodeState, RunRecord
from homeostat.engines.report import words

FIRST = ("python", "platform", "machine", "cpus")
NAMED = 5
"""Packages that a sentence names."""


def moved(before: str, now: str) -> str:
    """`lightgbm 4.6.0 (4.5.0 before), no shap and 3 more`, of two environments: a line `name==version` each. "": they
    are the same."""
    old, new = _versions(before), _versions(now)
    names = sorted(
        {name for name in (*old, *new) if old.get(name) != new.get(name)}, key=lambda one: (one not in FIRST, one)
    )
    said = [_said(name, old.get(name, ""), new.get(name, "")) for name in names]
    more = [words.counted(len(said) - NAMED, "more package")] if len(said) > NAMED + 1 else []
    return words.listed([*said[:NAMED], *more] if more else said)


def differs(before: RunRecord, there: str, now: RunRecord, here: str) -> str:
    """What a run did not have in common with the one before it, made `there`; "": nothing that is known."""
    return "; ".join(_differences(before, there, now, here))


def _differences(before: RunRecord, there: str, now: RunRecord, here: str) -> Iterator[str]:
    if before.dataset.digest != now.dataset.digest:
        yield f"data version {now.dataset.version} ({before.dataset.version} before)"
    if before.code != now.code:
        moved_on = before.code.commit != now.code.commit
        commits = f"commit {_commit(now.code)}, {_commit(before.code)} before" if moved_on else "not committed"
        yield f"other code ({commits})"
    changed = sorted(
        {name for name in (*before.params, *now.params) if before.params.get(name) != now.params.get(name)}
    )
    if changed:
        yield f"the parameters {words.listed(changed[:NAMED])}"
    if found := moved(there, here):
        yield found


def _commit(code: CodeState) -> str:
    return (code.commit[:12] or "none") + (" with changes" if code.dirty else "")


def _versions(text: str) -> Mapping[str, str]:
    lines = [line.partition("==") for line in text.splitlines() if line]
    return {name: version for name, _, version in lines}


def _said(name: str, before: str, now: str) -> str:
    if not now:
        return f"no {name} ({before} before)"
    return f"{name} {now} ({before or 'none'} before)"
