"""homeostat.yaml → Policy: overlays merged, environment variables expanded, each error with its line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from homeostat.domain.errors import ConfigError
from homeostat.domain.policy import VARIABLE, Policy, unset

POLICY_FILE = "homeostat.yaml"
_LATER = (("alerts",), ("release", "hooks"))
"""Settings whose variables only the control plane needs: it asks for them when it starts."""
_Path = tuple[str | int, ...]


def read_policy(root: Path, overlay: str | Path | None = None) -> Policy:
    """The policy of the project in folder `root`, with conf/<overlay>.yaml laid over it, or the file of that path.

    Errors: `ConfigError` that names file, line and setting.
    """
    origin: dict[_Path, str] = {}
    tree = _load(root / POLICY_FILE, POLICY_FILE, origin)
    if overlay:
        name = str(overlay) if isinstance(overlay, Path) else f"conf/{overlay}.yaml"
        path = overlay if isinstance(overlay, Path) else root / name
        tree = _merged(tree, _load(path, name, origin))
    tree = _expanded(tree, (), origin)
    try:
        return _adapter().validate_python(tree)
    except ValidationError as error:
        raise _explained(error, origin) from None


@cache
def _adapter() -> TypeAdapter[Policy]:
    return TypeAdapter(Policy)


def _load(path: Path, name: str, origin: dict[_Path, str]) -> dict[str, Any]:
    """Read one file; note in `origin` where each of its settings stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {name} here", where=str(path.parent), way_out="Make a project with `homeostat init`."
        ) from None
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"not valid YAML: {error.problem}", where=f"{name}:{line}") from None
    except YAMLError as error:
        raise ConfigError("not valid YAML", where=f"{name}: {error}") from None
    if not isinstance(tree, CommentedMap):
        raise ConfigError("the file holds no settings", where=f"{name}:1")
    origin.update(_origins(tree, (), name))
    plain: dict[str, Any] = _plain(tree)
    return plain


def _origins(node: Any, path: _Path, name: str) -> Iterator[tuple[_Path, str]]:
    """(path of a setting, "file:line") for every setting below `node`."""
    named = isinstance(node, CommentedMap)
    items = node.items() if named else enumerate(node) if isinstance(node, CommentedSeq) else ()
    for key, child in items:
        place = node.lc.key(key) if named else node.lc.item(key)
        yield (*path, key), f"{name}:{place[0] + 1}"
        yield from _origins(child, (*path, key), name)


def _plain(node: Any) -> Any:
    """Plain Python values: pydantic's dataclasses take dicts and tuples, not ruamel's own types."""
    if isinstance(node, Mapping):
        return {str(key): _plain(child) for key, child in node.items()}
    if isinstance(node, list):
        return tuple(_plain(child) for child in node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)  # a date is text until a setting wants otherwise


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: _merged(base.get(key), child) for key, child in over.items()}


def _expanded(node: Any, path: _Path, origin: Mapping[_Path, str]) -> Any:
    if isinstance(node, dict):
        return {key: _expanded(child, (*path, key), origin) for key, child in node.items()}
    if isinstance(node, tuple):
        return tuple(_expanded(child, (*path, i), origin) for i, child in enumerate(node))
    if not isinstance(node, str):
        return node
    missing = [name for name in VARIABLE.findall(node) if name not in os.environ]
    if missing and not any(path[: len(later)] == later for later in _LATER):
        raise unset(missing[0], _where(path, origin))
    return VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), node)


def _explained(error: ValidationError, origin: Mapping[_Path, str]) -> ConfigError:
    """The error in pydantic's list that says most, in our words."""
    found = error.errors(include_url=False)

    def specific(one: ErrorDetails) -> tuple[int, int, int]:
        """Of a union every branch complains: a key that none of them knows says most, then what lies deepest, then a
        value, what is missing and a wrong type; a key that another branch knows says nothing."""
        path = _known(one["loc"], origin)
        unknown = "unexpected" in one["type"] or one["type"] == "extra_forbidden"
        strange = 0 if not unknown else -1 if path[-1] in _settings(path[:-1]) else 1
        said = 0 if one["type"].endswith("_type") else 1 if one["type"].startswith("missing") else 2
        return strange, len(path), said

    first = max(found, key=specific)
    path = _known(first["loc"], origin)
    where = _where(path, origin)
    if first["type"] == "unexpected_keyword_argument":
        nearest = _nearest(path)
        return ConfigError(f"unknown setting {path[-1]!r}", where=where, way_out=nearest)
    if first["type"] in ("missing", "missing_argument"):
        missing = ".".join(str(part) for part in (*path, first["loc"][-1]))
        return ConfigError(f"the setting {missing} is missing", where=where)
    if first["type"] == "tuple_type":
        return ConfigError("a list is needed", where=where, way_out=f"Write {path[-1]}: [...], also for one alone.")
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(message[:1].lower() + message[1:], where=where)


def _known(loc: tuple[int | str, ...], origin: Mapping[_Path, str]) -> _Path:
    """pydantic's location without the names of union branches that it puts in."""
    path: _Path = ()
    for part in loc:
        if (*path, part) in origin:
            path = (*path, part)
    return path


def _where(path: _Path, origin: Mapping[_Path, str]) -> str:
    return f"{origin.get(path, POLICY_FILE)}  {'.'.join(map(str, path))}".rstrip()


def _nearest(path: _Path) -> str:
    known = _settings(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}."


def _settings(path: _Path) -> list[str]:
    """The names that may stand below `path`: found by walking the policy's dataclasses."""
    kinds: list[Any] = [Policy]
    for part in path:
        hints = [get_type_hints(kind) for kind in kinds]
        below = [hint[part] for hint in hints if part in hint] or kinds  # a name of the user's own is no setting
        kinds = [kind for hint in below for kind in _dataclasses(hint)]
    return [field.name for kind in kinds for field in fields(kind)]


def _dataclasses(hint: Any) -> list[Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    return [kind for inner in get_args(hint) for kind in _dataclasses(inner)]
