"""The project's own Python code: imported in isolation, read as text, and its state in git."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from homeostat.domain.errors import PipelineError
from homeostat.domain.run import CodeState

_NOT_CODE = {"tests", "deploy", "node_modules", "__pycache__", "build", "dist"}


class ProjectCode:
    """`ports.Code` for the project in folder `root`. Two projects may each have a `pipelines.train`: modules are
    imported with `root` first on the path, and leave `sys.modules` when the import is done."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._loaded: dict[tuple[str, str], ModuleType] = {}
        self._own: dict[str, ModuleType] = {}
        self._state = ""

    def module(self, name: str) -> ModuleType:
        sources = self.sources()
        if name not in sources:
            raise PipelineError(f"there is no module {name}", where=str(self._root / f"{name.replace('.', '/')}.py"))
        state = hashlib.sha256(
            "\0".join(f"{key}\0{text}" for key, text in sorted(sources.items())).encode()
        ).hexdigest()
        if (name, state) not in self._loaded:
            if state != self._state:
                self._state, self._own = state, {}  # the sources have changed: everything is imported afresh
            self._loaded[name, state] = self._imported(name)
        return self._loaded[name, state]

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """`root` first on the path and the project's modules in place; those of the same names from elsewhere step
        aside meanwhile."""
        packages = {name.split(".")[0] for name in self.sources()}
        aside = _taken_out(packages)
        sys.modules.update(self._own)
        sys.path.insert(0, str(self._root))
        importlib.invalidate_caches()
        written, sys.dont_write_bytecode = (
            sys.dont_write_bytecode,
            True,
        )  # an edit within a second must not find old code
        try:
            yield
        finally:
            sys.dont_write_bytecode = written
            sys.path.remove(str(self._root))
            self._own = _taken_out(packages)
            sys.modules.update(aside)

    def sources(self) -> Mapping[str, str]:
        return {_dotted(path.relative_to(self._root)): path.read_text(encoding="utf-8") for path in self._files()}

    def state(self) -> CodeState:
        commit = self._git("rev-parse", "--verify", "HEAD").strip()
        if not commit:
            return CodeState("", "", {_posix(path, self._root): _digest(path) for path in self._files()})
        untracked = self._git("ls-files", "--others", "--exclude-standard", "--", "*.py", "*.yaml").split("\n")
        digests = {name: _digest(self._root / name) for name in untracked if name}
        return CodeState(commit, self._git("diff", "HEAD", "--", "."), digests)

    def place(self, error: BaseException) -> str:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(str(self._root))]
        return f"{Path(frames[-1].filename).relative_to(self._root)}:{frames[-1].lineno}" if frames else ""

    def _files(self) -> list[Path]:
        found = []
        folders = [self._root]
        while folders:
            for path in sorted(folders.pop().iterdir()):
                if path.name.startswith(".") or path.name in _NOT_CODE:
                    continue
                if path.is_dir() and not (path / "pyvenv.cfg").exists():
                    folders.append(path)
                elif path.suffix == ".py":
                    found.append(path)
        return found

    def _imported(self, name: str) -> ModuleType:
        with self.at_home():
            try:
                return importlib.import_module(name)
            except (Exception, SystemExit) as error:  # whatever the user's module raises is the user's to see
                raise PipelineError(
                    f"importing {name} failed: {type(error).__name__}: {error}", where=self.place(error)
                ) from error

    def _git(self, *arguments: str) -> str:
        """The output, "" where git or a repository is missing: then the run says that it has no commit."""
        try:
            done = subprocess.run(
                ["git", "-C", str(self._root), *arguments], capture_output=True, check=False, text=True
            )
        except FileNotFoundError:
            return ""
        return done.stdout if done.returncode == 0 else ""


def _taken_out(packages: set[str]) -> dict[str, ModuleType]:
    below = tuple(f"{package}." for package in packages)  # of thousands of modules, for each fit
    names = [name for name in sys.modules if name.startswith(below) or name in packages]
    return {name: sys.modules.pop(name) for name in names}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _posix(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
