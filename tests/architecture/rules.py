"""The rules: each takes a source tree and returns one line for each place that breaks it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable

from tests.architecture.layers import IMPURE_MODULES, PUBLIC, PURE, READS_CONSTANTS, Row
from tests.architecture.source import Module, Source


def is_within(name: str, unit: str) -> bool:
    """Whether dotted `name` is `unit` or something in it."""
    return name == unit or name.startswith(unit + ".")


def cells(text: str) -> dict[str, str]:
    """Split a cell of the table into names and their remarks ("", "lazily", "one module")."""
    found = {}
    for part in text.split(", "):
        match = re.fullmatch(r"([\w.]+)(?: \(([\w ]+)\))?", part)
        if match is None:
            raise ValueError(f"cannot read {part!r} in {text!r}")
        found[match[1]] = match[2] or ""
    return found


def allowed_units(row: Row, rows: Iterable[Row]) -> dict[str, str]:
    """Return the units a row may import, each with its remark."""
    if row.may_import == "nothing":
        return {}
    if row.may_import == "all of the above":
        above: dict[str, str] = {}
        for other in rows:
            if other == row:
                break
            above[other.unit] = ""
        return above
    return cells(row.may_import)


def layer_breaches(source: Source, rows: tuple[Row, ...]) -> list[str]:
    """Return imports between units that the table does not allow."""
    found = []
    for module in source:
        unit = _unit(source, module.name)
        if unit in {"", "__main__"}:
            # The package's own face may name any part of it; what it loads is measured elsewhere.
            continue
        row = next((row for row in rows if row.unit == unit), None)
        if row is None:
            found.append(f"{module.name}: the unit {unit!r} has no row in the table")
            continue
        allowed = {unit: "", **allowed_units(row, rows)}
        for entry in source.imports(module):
            if not is_within(entry.module, source.package):
                continue
            target = entry.module.removeprefix(source.package).lstrip(".")
            if not target and entry.name in {"__version__", ""}:
                continue
            best = next((name for name in allowed if is_within(target, name)), None)
            if best is None:
                found.append(f"{module.name}:{entry.line}: {unit} may not import {target or entry.name}")
            elif allowed[best] == "lazily" and not entry.lazy:
                found.append(f"{module.name}:{entry.line}: {unit} may import {target} inside functions only")
    return found


def outside_breaches(source: Source, rows: tuple[Row, ...]) -> list[str]:
    """Return imports of outside packages that the table does not allow."""
    found = []
    users: dict[tuple[str, str], set[str]] = {}
    for module in source:
        unit = _unit(source, module.name)
        row = next((row for row in rows if row.unit == unit), None)
        allowed = cells(row.outside) if row is not None and row.outside != "none" else {}
        for entry in source.imports(module):
            package = entry.module.split(".")[0]
            if package in sys.stdlib_module_names or package in {source.package, ""}:
                continue
            where = f"{module.name}:{entry.line}"
            remark = allowed.get(package)
            if remark is None:
                found.append(f"{where}: {unit} may not import the package {package}")
            elif remark == "lazily" and not entry.lazy:
                found.append(f"{where}: {unit} may import {package} inside functions only")
            elif remark == "one module":
                users.setdefault((unit, package), set()).add(module.name)
    for (unit, package), modules in users.items():
        if len(modules) > 1:
            found.append(f"{unit}: {package} belongs in one module, not in {', '.join(sorted(modules))}")
    return found


def relative_imports(source: Source) -> list[str]:
    """Return imports that start with a dot."""
    return [
        f"{module.name}:{entry.line}: relative import"
        for module in source
        for entry in source.imports(module)
        if entry.module.startswith(".")
    ]


def private_imports(source: Source) -> list[str]:
    """Return private names and modules that another unit imports."""
    found = []
    for module in source:
        for entry in source.imports(module):
            if not is_within(entry.module, source.package):
                continue
            if _unit(source, entry.module) == _unit(source, module.name):
                continue
            path = [*entry.module.split("."), entry.name]
            if any(part.startswith("_") and not part.startswith("__") for part in path):
                found.append(f"{module.name}:{entry.line}: {'.'.join(filter(None, path))} is private")
    return found


def impurities(source: Source, pure: tuple[str, ...] = PURE) -> list[str]:
    """Return imports of doing modules by deciding ones."""
    found = []
    for module in source:
        local = module.name.removeprefix(source.package + ".")
        if not any(is_within(local, unit) for unit in pure):
            continue
        found += [
            f"{module.name}:{entry.line}: pure, but imports {entry.module}"
            for entry in source.imports(module)
            if entry.module.split(".")[0] in IMPURE_MODULES - READS_CONSTANTS.get(local, set())
        ]
    return found


def cycles(source: Source) -> list[str]:
    """Return the knots of modules that import one another, lazily or not."""
    edges = {
        module.name: sorted(
            {entry.module for entry in source.imports(module)} & source.modules.keys() - {module.name}
        )
        for module in source
    }
    return [" <-> ".join(sorted(knot)) for knot in _knots(edges) if len(knot) > 1]


def missing_docstrings(source: Source) -> list[str]:
    """Return modules that say nothing about themselves; an empty package file may be silent."""
    return [
        module.name
        for module in source
        if not (module.is_package and not module.text.strip()) and not ast.get_docstring(module.tree)
    ]


def undeclared_names(source: Source) -> list[str]:
    """Return public names that a module defines but does not list in `__all__`; constants and type variables are free."""
    found = []
    for module in source:
        if module.name.endswith("__main__"):
            continue
        declared = module.declared_all
        defined = {name for name in module.defined if not name.isupper() and name != "logger"}
        if declared is None:
            if defined:
                found.append(f"{module.name}: has public names and no __all__")
            continue
        extra = sorted(defined - set(declared))
        if extra:
            found.append(f"{module.name}: __all__ lacks {', '.join(extra)}")
        doubled = sorted({name for name in declared if declared.count(name) > 1})
        if doubled:
            found.append(f"{module.name}: __all__ lists {', '.join(doubled)} twice")
    return found


def environment_and_clock_readers(source: Source) -> list[str]:
    """Return reads of the environment outside `config` and `processes`, and of the time outside `clock`."""
    clocks = {
        f"time.{name}"
        for name in [
            "time",
            "time_ns",
            "monotonic",
            "monotonic_ns",
            "perf_counter",
            "perf_counter_ns",
            "sleep",
        ]
    }
    environment = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    found = []
    for module in source:
        unit = _unit(source, module.name)
        banned = (set() if unit == "clock" else clocks) | (
            set() if unit in {"config", "processes"} else environment
        )
        for node in ast.walk(module.tree):
            named = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if named in banned:
                found.append(f"{module.name}:{node.lineno}: {named}")
        for entry in source.imports(module):
            if f"{entry.module}.{entry.name}" in banned:
                found.append(f"{module.name}:{entry.line}: {entry.module}.{entry.name}")
    return found


def private_use(source: Source, package: str = "trygon", public: tuple[str, ...] = PUBLIC) -> list[str]:
    """Return what examples and applications import of `package` beyond its public names."""
    found = []
    for module in source:
        for entry in source.imports(module):
            if not is_within(entry.module, package):
                continue
            path = [part for part in [*entry.module.split(".")[1:], entry.name] if part]
            if not path or path == ["__version__"]:
                continue
            if path[0] not in public or any(part.startswith("_") for part in path):
                found.append(f"{module.path.name}:{entry.line}: {package}.{'.'.join(path)} is not public")
    return found


def habit_breaches(module: Module) -> list[str]:
    """Return mocks, and sleeps of a test itself (served code may sleep: that is its work)."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
            if any(name in {"unittest.mock", "mock"} for name in names):
                found.append(f"{module.name}:{node.lineno}: imports a mock; write a fake")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            found += [f"{module.name}:{line}: sleeps; wait for an event" for line in _sleeps(node)]
    return found


def _sleeps(function: ast.AST) -> Iterable[int]:
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Call) and ast.unparse(child.func) in {"time.sleep", "asyncio.sleep"}:
            gives_way = ast.unparse(child.args[0]) == "0"
            if not gives_way:
                yield child.lineno
        yield from _sleeps(child)


def _unit(source: Source, name: str) -> str:
    """Return the first name below the package: the unit that the table speaks of."""
    rest = name.removeprefix(source.package).lstrip(".")
    return rest.split(".")[0]


def _knots(edges: dict[str, list[str]]) -> list[set[str]]:
    """Return the strongly connected parts of a graph (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    knots: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            knot: set[str] = set()
            while node not in knot:
                knot.add(stack.pop())
            knots.append(knot)

    for node in edges:
        if node not in index:
            visit(node)
    return knots
