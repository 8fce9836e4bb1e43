"""Reads a source tree without running it: modules, what they import, and what they define."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported name, as one line of one module."""

    #: Dotted module the name comes from; for `from a import b`, `a.b` if that is a module of the tree.
    module: str
    #: The name taken from it, or "" for `import a.b` and for modules.
    name: str
    line: int
    #: Inside a function, or under `if TYPE_CHECKING`.
    lazy: bool


class Module:
    """One file of the tree."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name = name
        self.path = path
        self.text = text

    def __repr__(self) -> str:
        return f"<module {self.name}>"

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, str(self.path))

    @property
    def is_package(self) -> bool:
        """Whether this is the `__init__` of a package."""
        return self.path.name == "__init__.py"

    @cached_property
    def declared_all(self) -> list[str] | None:
        """The names in `__all__`, or None when there is no such list."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
            ):
                value: list[str] = ast.literal_eval(node.value)
                return value
        return None

    @cached_property
    def defined(self) -> set[str]:
        """Public names that the module's own top level defines; imports do not count."""
        names: set[str] = set()
        for node in _top_level(self.tree.body):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
        return {name for name in names if not name.startswith("_")}


class Source:
    """A source tree whose files are modules below `package`."""

    def __init__(self, root: Path, package: str) -> None:
        self.package = package
        self.modules: dict[str, Module] = {}
        for path in sorted(root.rglob("*.py")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            name = ".".join(part for part in parts if part)
            self.modules[name] = Module(name, path, path.read_text(encoding="utf-8"))

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def imports(self, module: Module) -> Iterator[Import]:
        """Yield everything a module imports, wherever in the file it does so."""
        yield from self._imports(module.tree, lazy=False)

    def _imports(self, node: ast.AST, *, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, lazy)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    origin = "." * child.level + (child.module or "")
                    if f"{origin}.{alias.name}" in self.modules:
                        yield Import(f"{origin}.{alias.name}", "", child.lineno, lazy)
                    else:
                        yield Import(origin, alias.name, child.lineno, lazy)
            elif isinstance(child, ast.If) and _is_type_checking(child.test):
                for statement in child.body:
                    yield from self._imports(ast.Module([statement], []), lazy=True)
                for statement in child.orelse:
                    yield from self._imports(ast.Module([statement], []), lazy=lazy)
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._imports(child, lazy=lazy or is_function)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in {"TypeVar", "ParamSpec", "TypeVarTuple"}


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and not _is_type_checking(node.test):
            yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _top_level(node.body)
        else:
            yield node
