"""What others' rules say of the same minutes: (runs,) the look at which each takes the release back, or NEVER."""

from __future__ import annotations

import numpy as np
from scipy.stats import mannwhitneyu, norm

from bench.evidence.releases import NEVER, Events, Ints


def objective(seen: Events, success: float, failures: int) -> Ints:
    """A fixed objective for the candidate's success rate in each minute, as canary controllers have it: taken back
    after so many minutes below it (Argo Rollouts' default: one; Flagger's example: five)."""
    rate = 1 - seen.candidate / np.maximum(seen.shown[0], 1)
    failed = np.cumsum(rate < success, axis=-1) >= failures
    return np.where(failed.any(axis=-1), failed.argmax(axis=-1) + 1, NEVER)


def z_test(seen: Events, p: float = 0.05) -> Ints:
    """The one-sided test of two proportions over all minutes so far, looked at each minute."""
    bad = [np.cumsum(one, axis=-1) for one in (seen.candidate, seen.champion)]
    n = [np.maximum(np.cumsum(one, axis=-1), 1) for one in seen.shown]
    pooled = (bad[0] + bad[1]) / (n[0] + n[1])
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]), 1e-12))
    found = (bad[0] / n[0] - bad[1] / n[1]) / spread >= norm.isf(p)
    return np.where(found.any(axis=-1), found.argmax(axis=-1) + 1, NEVER)


def mann_whitney(seen: Events, p: float = 0.01, effect: float = 1.25) -> Ints:
    """One judgement at the end, of the error rates of the minutes as two samples, as Kayenta's judge: a significant
    difference, and means that differ by a quarter."""
    mine, theirs = (bad / np.maximum(n, 1) for bad, n in zip((seen.candidate, seen.champion), seen.shown, strict=True))
    found = mannwhitneyu(mine, theirs, axis=1, alternative="greater").pvalue < p
    found &= mine.mean(axis=1) > effect * theirs.mean(axis=1)
    return np.where(found, mine.shape[-1], NEVER)
