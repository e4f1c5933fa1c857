"""Cache keys. A step's key changes exactly when its result might: with its code and all project code that it
reaches, its inputs, its parameters or its environment. Comments, docstrings and layout change nothing."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


def digest(parts: Iterable[str]) -> str:
    """SHA-256 over the parts; each is framed by its length, so that no two lists of parts give the same bytes."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode()
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()


def step_key(code: str, inputs: Mapping[str, str], environment: str) -> str:
    """The key of one step: digest of its code, keys of its inputs by name, digest of the environment."""
    return digest([code, environment, *(f"{name}={key}" for name, key in sorted(inputs.items()))])


@dataclass(frozen=True, slots=True)
class _Module:
    """A parsed project module: its top-level definitions by name, what it imports from where, its other lines."""

    names: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    loose: list[ast.stmt] = field(default_factory=list)


class CodeIndex:
    """The project's sources (dotted module name → text), parsed once; answers for any definition in them.

    Errors: SyntaxError from a source that is not Python.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._modules = {name: _parsed(name, text) for name, text in sources.items()}
        self._digests: dict[tuple[str, str], str] = {}

    def digest(self, module: str, name: str) -> str:
        """Digest of definition `name` of `module`, and of every project definition it reaches. Top-level lines that
        define nothing (a call, a loop) may change anything: they count for each definition of their module."""
        if (module, name) not in self._digests:
            self._digests[module, name] = self._digest(module, name)
        return self._digests[module, name]

    def _digest(self, module: str, name: str) -> str:
        reached: dict[tuple[str, str], str] = {}
        queue = [(module, name)]
        while queue:
            place = queue.pop()
            if place in reached or place[0] not in self._modules:
                continue
            nodes = self._nodes(*place)
            reached[place] = "\n".join(_normal(node) for node in nodes)
            queue += [target for node in nodes for target in self._targets(place[0], node)]
        return digest(part for (where, what), text in sorted(reached.items()) for part in (where, what, text))

    def _nodes(self, module: str, name: str) -> list[ast.stmt]:
        parsed = self._modules[module]
        if name == "*":
            return [*(node for nodes in parsed.names.values() for node in nodes), *parsed.loose]
        return [*parsed.names.get(name, ()), *parsed.loose]

    def _targets(self, module: str, node: ast.stmt) -> list[tuple[str, str]]:
        """The project definitions that `node` names."""
        parsed = self._modules[module]
        out: list[tuple[str, str]] = []
        inner = _imports(node, module)
        known = {**parsed.imports, **inner}
        for child in ast.walk(node):
            if isinstance(child, ast.Attribute) and (dotted := _dotted(child)):
                out += self._through_module(known, dotted)
            if isinstance(child, ast.Name):
                if child.id in parsed.names:
                    out.append((module, child.id))
                elif child.id in known:
                    out.append(self._resolved(*known[child.id]))
        return out

    def _through_module(self, known: Mapping[str, tuple[str, str]], dotted: str) -> list[tuple[str, str]]:
        """`lib.helper` with `import lib`: the definition `helper` of `lib`."""
        head, *rest = dotted.split(".")
        if head not in known:
            return []
        module, name = known[head]
        path = [*module.split("."), *([] if name == "*" else [name]), *rest]
        for cut in range(len(path) - 1, 0, -1):
            if (owner := ".".join(path[:cut])) in self._modules:
                return [(owner, path[cut])]
        return []

    def _resolved(self, module: str, name: str) -> tuple[str, str]:
        """`from package import module` names a module: then everything in it counts."""
        return (f"{module}.{name}", "*") if f"{module}.{name}" in self._modules else (module, name)


def _parsed(name: str, text: str) -> _Module:
    parsed = _Module()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            parsed.imports.update(_imports(node, name))
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                star = f"__all_of_{len(parsed.imports)}"  # a name that every definition here is taken to use
                parsed.loose.append(ast.Expr(ast.Name(star)))
                parsed.imports[star] = (_absolute(node, name), "*")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parsed.names.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for target in _assigned(node):
                parsed.names.setdefault(target, []).append(node)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            parsed.loose.append(node)
    return parsed


def _assigned(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [child.id for target in targets for child in ast.walk(target) if isinstance(child, ast.Name)]


def _imports(node: ast.AST, module: str) -> dict[str, tuple[str, str]]:
    """Local name → (module, definition) of each import below `node`; "*" is the whole module."""
    out: dict[str, tuple[str, str]] = {}
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                out[alias.asname or whole] = (whole, "*")
        elif isinstance(child, ast.ImportFrom):
            origin = _absolute(child, module)
            out.update({alias.asname or alias.name: (origin, alias.name) for alias in child.names})
    return out


def _absolute(node: ast.ImportFrom, module: str) -> str:
    parents = module.split(".")[: -node.level] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def _dotted(node: ast.Attribute) -> str:
    parts = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    return ".".join([value.id, *reversed(parts)]) if isinstance(value, ast.Name) else ""


class _WithoutDocstrings(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
        return node


def _normal(node: ast.stmt) -> str:
    """The syntax tree as text, without docstrings and positions."""
    return ast.dump(_WithoutDocstrings().visit(ast.parse(ast.unparse(ast.fix_missing_locations(node)))))
