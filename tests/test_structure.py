"""The structure of the code: who may import whom within a room, how long files and functions are, one class a name.

Each rule is shown to be able to fail.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("schemas", "broker", "mac_agent", "vps_bridge")
FOLDERS = (*ROOMS, "clients", "integrations", "demo", "benchmarks", "tests")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 40

# From low to high: a package imports packages of the lines before its own, never one of its own line or after.
LAYERS = {
    "vps_bridge": (
        {
            "errors",
            "backoff",
            "durations",
            "moments",
            "clock_steps",
            "locked_file",
            "interpreter",
            "matrix_threads",
            "rules",
            "people",
            "migrations",
            "signed_endpoint",
            "packed_rows",
            "opened",
        },
        {"error_guard", "settings", "database", "database_server", "outage", "timed_calls"},
        {"gone_database"},
        {"conversations", "ledger", "database_copies", "bucket"},
        {"labelling", "mailbox", "kept_messages", "publisher", "presence", "membership"},
        {"intake", "admission", "exports"},
        {"dispatch", "backup"},
        {"retention", "compaction", "schedule", "http", "webhook"},
        {"beats", "bridge_files", "consequences", "omi"},
        {"bridge"},
        {"client", "doctor"},
        {"commands"},
        {"__main__"},
    ),
    "mac_agent": ({"errors"}, {"weights"}, {"engines"}),
}

Imports = Mapping[str, set[str]]


def modules_of(room: str) -> dict[str, str]:
    """Return the source of every module of a room by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sorted((ROOT / room).rglob("*.py"))
        if "migrations" not in path.parts
    }


def imports_between(modules: Mapping[str, str]) -> Imports:
    """Return for each module which of the others it imports, for types only or inside a function too."""
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, source in modules.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
                found[name].update(target for target in wanted if target in modules and "." in target)
            elif isinstance(node, ast.Import):
                found[name].update(alias.name for alias in node.names if alias.name in modules)
        found[name].discard(name)
    return found


def package_of(module: str) -> str:
    """Return the folder or the file directly below the room in which a module lives."""
    return module.split(".")[1] if "." in module else module


def packages_of(imports: Imports) -> dict[str, set[str]]:
    """Return for each package which of the others it imports. The room's own `__init__` is none."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, targets in imports.items():
        if "." in name:
            found[package_of(name)].update({package_of(target) for target in targets} - {package_of(name)})
    return found


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return one path for each name that leads back to itself."""
    found = []
    for start in graph:
        paths, seen = [[start]], set()
        while paths:
            path = paths.pop()
            for following in graph.get(path[-1], ()):
                if following == start:
                    found.append([*path, start])
                elif following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
    return found


def arrows_upward(imports: Imports, layers: tuple[set[str], ...]) -> list[str]:
    """Return each import of a package that is not below the importing one. Of packages in no layer nothing is said."""
    height = {package: place for place, packages in enumerate(layers) for package in packages}
    return [
        f"{name} imports {target}"
        for name, targets in imports.items()
        for target in sorted(targets)
        if package_of(name) in height
        and package_of(target) != package_of(name)
        and height.get(package_of(target), len(layers)) >= height[package_of(name)]
    ]


def long_functions(source: str, name: str) -> list[str]:
    """Return the functions with too many lines, docstring left out."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            said = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - said
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{name}: {node.name} has {lines} lines")
    return found


def class_names(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return where each name of a class is used more than once, at the top of a module."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    return {name: found for name, found in places.items() if len(found) > 1}


def python_files() -> dict[str, str]:
    """Return every Python file of this repository but the migrations, which are never changed again."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if "migrations" not in path.parts}


def unused_modules(sources: Mapping[str, str], texts: Iterable[str]) -> list[str]:
    """Return the modules that no other one imports and no other file names: what a change left behind."""
    imported: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    every_text = "\n".join(texts)
    return sorted(
        name
        for name in sources
        if name not in imported and name not in every_text and f"{name.rpartition('.')[2]}.py" not in every_text
    )


def unused_names(sources: Mapping[str, str]) -> list[str]:
    """Return the functions, classes and constants of the modules' top level whose names stand nowhere else."""
    words = Counter(word for source in sources.values() for word in re.findall(r"\w+", source))
    found = []
    for module, source in sources.items():
        for node in ast.parse(source).body:
            names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.decorator_list:
                names.append(node.name)
            found += [f"{module}.{name}" for name in names if words[name] == 1]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_and_no_package_of_a_room_leads_back_to_itself(room):
    imports = imports_between(modules_of(room))
    assert cycles(imports) == []
    assert cycles(packages_of(imports)) == []


@pytest.mark.parametrize("room", LAYERS)
def test_no_arrow_points_upward(room):
    assert arrows_upward(imports_between(modules_of(room)), LAYERS[room]) == []


def test_every_package_of_the_bridge_has_its_layer():
    packages = {package_of(name) for name in modules_of("vps_bridge")} - {"vps_bridge"}
    assert packages == set().union(*LAYERS["vps_bridge"])


def test_nothing_but_its_entry_imports_the_commands_of_the_agent():
    imports = imports_between(modules_of("mac_agent"))
    assert [name for name, packages in packages_of(imports).items() if "commands" in packages] == ["__main__"]


def test_no_file_is_longer_than_400_lines():
    long = {name: source.count("\n") for name, source in python_files().items() if source.count("\n") > MAX_FILE_LINES}
    assert long == {}, "two nouns live here"


def test_no_function_is_longer_than_40_lines():
    assert [line for name, source in python_files().items() for line in long_functions(source, name)] == []


def test_no_two_classes_have_one_name():
    assert class_names(python_files()) == {}


def test_no_module_is_left_behind():
    """A module is imported, or it is run: then the Makefile, a page, or a test names it."""
    others = [
        path for pattern in ("Makefile", "pyproject.toml", ".ci/*", "docs/**/*.md") for path in ROOT.glob(pattern)
    ]
    texts = [path.read_text() for path in [*others, *ROOT.glob("*.md")] if path.is_file()]
    sources = {name: source for room in FOLDERS for name, source in modules_of(room).items()}
    run = {name for name in sources if name.rpartition(".")[2].startswith(("__main__", "test_", "conftest"))}
    own_package = {name for name in sources if name.startswith("clients.python.")}  # it imports itself without a folder
    found = unused_modules(sources, [*texts, *sources.values()])
    assert [name for name in found if name not in run | own_package] == []


def test_no_name_is_left_behind():
    sources = {name: source for room in FOLDERS for name, source in modules_of(room).items()}
    hooks = ("pytest_", "test_", "Test", "pytestmark")
    assert [name for name in unused_names(sources) if not name.rpartition(".")[2].startswith(hooks)] == []


def test_planted_leftovers_are_caught():
    sources = {
        "a.one": "from a import two\n",
        "a.two": "USED = 1\n",
        "a.three": "USED = 2\nLEFT = 3\ndef left(): ...\n",
    }
    assert unused_modules(sources, ["python -m a.one"]) == ["a.three"]
    assert unused_names(sources) == ["a.three.LEFT", "a.three.left"]


def test_a_planted_cycle_is_caught():
    modules = {"r.a.x": "from r.b import y", "r.b.y": "if 1:\n    import r.c", "r.c": "from r.a import x", "r.d": ""}
    imports = imports_between(modules)
    assert len(cycles(imports)) == 3
    assert len(cycles(packages_of(imports))) == 3


def test_a_planted_arrow_upward_is_caught():
    modules = {"r.low": "from r.high import z", "r.high": "from r.low import z", "r.even": "import r.low"}
    imports = imports_between(modules)
    assert arrows_upward(imports, ({"low", "even"}, {"high"})) == ["r.low imports r.high", "r.even imports r.low"]
    assert arrows_upward(imports, ({"low"},)) == ["r.low imports r.high"]


def test_a_planted_long_function_and_a_second_class_of_a_name_are_caught():
    lines = "    x = 1\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def f():\n{lines}", "a.py") == ["a.py: f has 41 lines"]
    short = "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert long_functions(f'def f():\n    """Say\n\n    much.\n    """\n{short}', "a.py") == []
    assert class_names({"a.py": "class A: ...", "b.py": "class A: ..."}) == {"A": ["a.py", "b.py"]}
