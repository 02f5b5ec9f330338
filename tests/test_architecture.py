"""Imports go one way: down the list of DESIGN.md's second section, wherever in a file they stand."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "thriftune"

# What stands further up may be imported by what stands further down, never the other way round. The name of
# `monitor` is held for a package to come.
LAYERS = (
    "errors clock options processes memory traffic faults",
    "store artifacts events",
    "money",
    "budget",
    "context cluster",
    "metrics models tasks managed",
    "collect prepare train evaluate search select deploy monitor",
    "plan",
    "timeline",
    "report",
    "project",
    "session",
    "sizes",
    "asked",
    "forecasting reviewing supposing",
    "managed_line search_line evidence_line queueing launching",
    "pipeline",
    "cli",
)
TO_COME = {"monitor"}
ORDER = [name for layer in LAYERS for name in layer.split()]

# They take seconds to import: a command that needs none of them must not wait for them.
HEAVY = ("torch", "transformers", "sklearn", "scipy", "polars", "plotly", "peft", "fastapi", "uvicorn", "google", "ray")


@dataclass(frozen=True)
class Import:
    """`file` imports from the part `target`, at `line`."""

    file: Path
    line: int
    target: str

    @property
    def part(self) -> str:
        return part_of(self.file)

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line} imports {self.target}"


def part_of(file: Path) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path, source: str) -> Iterator[Import]:
    """Every import of another part, in functions too; those that only type checkers see are left out."""
    for node in seen_at_run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["thriftune", *file.relative_to(SOURCE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import_module" in source:
            modules = [node.value]  # perhaps the argument of import_module
        else:
            continue
        for module in modules:
            names = module.split(".")
            if names[0] == "thriftune" and len(names) > 1 and names[1] in ORDER and names[1] != part_of(file):
                yield Import(file, node.lineno, names[1])


def seen_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, without the bodies of `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        for inside in child.orelse if isinstance(child, ast.If) and guarded else [child]:
            yield from seen_at_run_time(inside)


def all_imports() -> list[Import]:
    files = sorted(SOURCE.rglob("*.py"))
    return [each for file in files for each in imports(file, file.read_text(encoding="utf-8"))]


def test_imports_go_down_the_list_only():
    upwards = [each for each in all_imports() if ORDER.index(each.part) < ORDER.index(each.target)]
    assert not upwards, "\n".join(map(str, upwards))


def test_the_list_names_every_part_and_nothing_else():
    there = {part_of(file) for file in SOURCE.rglob("*.py")} - {"__init__"}
    assert there - set(ORDER) == set(), "name it in LAYERS, where it belongs"
    assert set(ORDER) - there - TO_COME == set()


def test_no_two_files_need_each_other_to_be_imported():
    """Within a package too, at the top of files: a cycle works or not by who is imported first."""
    modules = {module_name(file): file for file in SOURCE.rglob("*.py")}
    needs = {name: set(top_level_needs(file, modules)) - {name} for name, file in modules.items()}
    while ready := {name for name, needed in needs.items() if not needed}:
        needs = {name: needed - ready for name, needed in needs.items() if name not in ready}
    assert not needs, f"a cycle among {sorted(needs)}"


def module_name(file: Path) -> str:
    names = ["thriftune", *file.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def top_level_needs(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inner)


@pytest.mark.parametrize("module", ["thriftune.cli.commands", "thriftune.project", "thriftune.pipeline"])
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    script = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("from thriftune.pipeline import run", "pipeline"),
        ("from thriftune import pipeline", "pipeline"),
        ("import thriftune.cli.main", "cli"),
        ("from ..report import model", "report"),
        ("def late():\n    from thriftune.plan.plan import Plan", "plan"),
        ("import importlib\nimportlib.import_module('thriftune.cli.main')", "cli"),
    ],
)
def test_an_import_upwards_is_found_however_it_is_written(source, target):
    found = [each.target for each in imports(SOURCE / "train" / "example.py", source)]
    assert found == [target]


def test_what_only_type_checkers_see_is_no_import():
    source = "if TYPE_CHECKING:\n    from thriftune.cli import main\nelse:\n    from thriftune.money import meter"
    assert [each.target for each in imports(SOURCE / "train" / "example.py", source)] == ["money"]
