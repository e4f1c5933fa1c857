"""Who answers whom: a stable hash puts every key in one of 10,000 buckets, and the candidate gets the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.units import ALL


def assign(salt: str, keys: Sequence[str]) -> NDArray[np.int64]:
    """(n,) buckets in 0..9999: BLAKE2b of salt and key modulo 10,000 (bias below 1e-15). The same key
    keeps its bucket in every process; another salt shuffles all of them, so that releases are independent."""
    start = blake2b(salt.encode(), digest_size=8)
    return np.array([_bucket(start.copy(), key) for key in keys], np.int64)


def _bucket(digest: blake2b, key: str) -> int:
    digest.update(b"\0" + key.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") % ALL


def to_candidate(salt: str, keys: Sequence[str], weight: int) -> NDArray[np.bool_]:
    """(n,) whose turn it is to be answered by the candidate at `weight` basis points. A key that is in at one weight
    stays in at every higher one."""
    if weight in (0, ALL):  # nobody, or everybody: no hash needed
        return np.full(len(keys), weight == ALL)
    return np.asarray(assign(salt, keys) < weight)
