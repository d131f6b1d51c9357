"""Structure of the code: size of functions and constructors, unique class names, no private imports in tests."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FUNCTION_LINES = 80
MAX_CONSTRUCTOR_ARGUMENTS = 12

LONG_FUNCTIONS = {
    "app/sandbox/rest.py:_telnyx_routes": "The routes are closures over the account.",
}
"""Longer functions, each with its reason."""

LARGE_CONSTRUCTORS = {
    "app/adapters/identity/claims.py:Issuer": "One field per setting of an issuer.",
    "app/composition/components.py:Components": "One field per component of the service.",
    "app/composition/components.py:LedgerComponents": "One field per part of the ledger.",
    "app/sandbox/provider.py:Provider": "One field per property in which identity providers differ.",
    "app/vending/events/models.py:Delivery": "One field per column of the ledger.",
    "app/vending/policy.py:Allowance": "One field per setting of a policy rule.",
    "app/vending/push/models.py:PushObject": "One field per column of the ledger.",
    "app/vending/telephony/lease.py:Lease": "One field per column of the ledger.",
}
"""Constructors with more arguments, each with its reason."""


def sources(folder: str) -> Iterator[tuple[str, ast.Module]]:
    """Path below the root and syntax tree of every module."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        if {".venv", "node_modules"} & set(path.parts):
            continue
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def constructor_arguments(node: ast.ClassDef) -> int:
    """Number of arguments of `__init__`, or of fields if the class is a dataclass."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = item.args
            return len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return sum(isinstance(item, ast.AnnAssign) for item in node.body)
    return 0


def test_functions_have_at_most_80_lines() -> None:
    long = {
        f"{path}:{node.name}"
        for path, tree in sources("app")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }

    assert long == LONG_FUNCTIONS.keys(), "split the function, or remove its stale entry from LONG_FUNCTIONS"


def test_constructors_have_at_most_12_arguments() -> None:
    large = {
        f"{path}:{node.name}"
        for path, tree in sources("app")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and constructor_arguments(node) > MAX_CONSTRUCTOR_ARGUMENTS
    }

    assert large == LARGE_CONSTRUCTORS.keys(), "group the arguments, or remove the stale entry from LARGE_CONSTRUCTORS"


def test_class_names_are_unique_in_app() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in sources("app"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path)
    repeated = {name: paths for name, paths in found.items() if len(paths) > 1}

    assert repeated == {}


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_private_names_are_not_imported(folder: str) -> None:
    imported = {
        f"{path}:{node.lineno} {alias.name}"
        for path, tree in sources(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    }

    assert imported == set()


def test_test_modules_are_not_imported() -> None:
    imported = {
        f"{path}:{node.lineno} {node.module}"
        for path, tree in sources("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.rpartition(".")[2].startswith("test_")
    }

    assert imported == set(), "move what several test modules use to tests/support"


def test_repository_does_not_refer_to_files_outside() -> None:
    outside = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.md", "docs/**/*.md", "app/**/*.py", "tests/**/*.py", ".ci/*", "Makefile")
        for path in ROOT.glob(pattern)
        if path.is_file() and path != Path(__file__) and "../shared" in path.read_text(errors="ignore")
    ]

    assert outside == []


VAGUE_WORDS = {"anew", "anybody", "everybody", "nobody", "somebody", "who", "whoever", "whom", "whose"}
"""A test name states its actor as a noun."""


def test_test_names_state_their_actor() -> None:
    vague = {
        f"{path}:{node.lineno} {node.name}"
        for path, tree in sources("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and VAGUE_WORDS & set(node.name.split("_"))
    }

    assert vague == set()
