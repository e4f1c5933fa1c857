"""One turn of the pipeline and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from homeostat.domain.bundle import Version
from homeostat.domain.dataset import DatasetVersion
from homeostat.domain.gate import GateResult, Measurement, Verdict


@dataclass(frozen=True, slots=True)
class CodeState:
    """The commit a run was made from, the uncommitted diff on top of it, and digests of untracked sources.
    `commit` is "" outside a git repository."""

    commit: str
    diff: str
    untracked: Mapping[str, str]

    @property
    def dirty(self) -> bool:
        return bool(self.diff or self.untracked)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: its cache key, and whether its result was there already."""

    name: str
    key: str
    cached: bool
    wall_ms: int


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """`version` is None when a gate said harm or invalid: then nothing was registered. `report`: where its HTML is.
    `fitted`: the rows of all its fits, those of a sweep apart; the same whether the cache had them or not."""

    id: str
    dataset: DatasetVersion
    steps: tuple[Step, ...]
    measurements: tuple[Measurement, ...]
    gates: tuple[GateResult, ...]
    version: Version | None
    report: str = ""
    fitted: int = 0

    @property
    def verdict(self) -> Verdict:
        return worst(gate.verdict for gate in self.gates)

    def __repr__(self) -> str:
        what = f"version {self.version.number}" if self.version else "nothing registered"
        lines = [f"Run {self.id}: {self.verdict.value}, {what}; data version {self.dataset.version}"]
        lines += [f"  {gate.name}: {gate.verdict.value}: {gate.reason}" for gate in self.gates]
        lines += [f"  {measurement}" for measurement in self.measurements]
        return "\n".join([*lines, *([f"  report: {self.report}"] if self.report else [])])


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Where a bundle comes from: what its run.json holds."""

    id: str
    at_ms: int
    dataset: DatasetVersion
    code: CodeState
    params: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    gates: tuple[GateResult, ...]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """harm before invalid before unknown before ok; ok when there is none."""
    seen = set(verdicts)
    return next((v for v in (Verdict.HARM, Verdict.INVALID, Verdict.UNKNOWN) if v in seen), Verdict.OK)
