"""The map of app/: which package may import which, and what the cores may not touch.

The imports are read from the source and not from a running program, so an import inside a function counts, too.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = "app/*.py"  # errors, clock, lifecycle, health …, and the packages of BASE_PACKAGES
BASE_PACKAGES = {"settings", "metrics", "logs"}

# A package -> the packages that it may import. Discuss a new entry before you add it.
MAY_IMPORT = {
    BASE: {"identity", "storage"},  # the settings read write keys, the health report names an error of MongoDB
    "identity": {BASE},
    "serving": {BASE, "http", "identity", "storage"},  # a refusal before Flask has the headers of every answer
    "storage": {BASE, "serving"},  # long work yields as serving/fairness.py says
    "http": {BASE, "identity", "serving", "storage"},
    "telemetry": {BASE, "http", "identity", "serving", "storage"},
    "flags": {BASE, "http", "identity", "serving", "storage"},
    "realtime": {BASE, "http", "identity", "serving", "storage"},
    "console": {BASE, "http", "identity", "serving", "storage"},
    "sdk": set(),  # files that others copy
    "wiring": {BASE, "http", "identity", "serving", "storage", "telemetry", "flags", "realtime", "console"},
}

FOR_TYPES_ONLY = {("app.http.context", "app.wiring.parts")}  # a face names the type of the parts that it is given

# Pure code: it takes values and `now`, and returns values. `.*` stands for every module of a package.
CORES = (
    "app.errors",
    "app.flags.flag",
    "app.flags.murmur3",
    "app.flags.rules",
    "app.identity.identity",
    "app.identity.origins",
    "app.identity.write_keys",
    "app.json_values",
    "app.realtime.acknowledging",
    "app.realtime.allowance",
    "app.realtime.archive",
    "app.realtime.buckets",
    "app.realtime.connection",
    "app.realtime.delivery.*",
    "app.realtime.hub",
    "app.realtime.log",
    "app.realtime.log.memory",
    "app.realtime.log.publishers",
    "app.realtime.log.shares",
    "app.realtime.members",
    "app.realtime.permissions",
    "app.realtime.protocol",
    "app.realtime.publishing",
    "app.realtime.options",
    "app.realtime.subscribing",
    "app.realtime.subscription",
    "app.realtime.timers",
    "app.realtime.topics",
    "app.realtime.transport",
    "app.realtime.transport.packets",
    "app.storage.circuit_breaker",
    "app.storage.fingerprint",
    "app.telemetry.event",
    "app.telemetry.fields",
    "app.telemetry.stats.sketch",
)
# What a core may import from this project besides other cores: types and functions of values.
VALUES = ("app.clock", "app.metrics", "app.settings")
FLASK = {"flask", "flask_cors", "flask_limiter", "flask_smorest", "flask_socketio"}
DATABASES = {"mongoengine", "pymongo", "redis", "sqlite3"}
NOT_IN_A_CORE = FLASK | DATABASES | {"engineio", "gevent", "socketio", "structlog"}
PURE_STANDARD_LIBRARY = {
    *("abc", "bisect", "collections", "dataclasses", "datetime", "enum", "functools", "hashlib", "heapq", "http", "ipaddress", "itertools"),
    *("json", "math", "operator", "random", "re", "secrets", "string", "struct", "types", "typing", "unicodedata", "urllib", "zlib"),
}


@cache
def modules() -> dict[str, Path]:
    files = (ROOT / "app").rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules that `module` imports, in full."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return frozenset(found)


def package_of(module: str) -> str:
    """The package under app/, or BASE for a module at its top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "app" / parts[1]).is_dir() and parts[1] not in BASE_PACKAGES else BASE


def is_one_of(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or (name.endswith(".*") and f"{module}.".startswith(name[:-1])) for name in names)


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "app"


def imports_of_modules(wanted) -> list[tuple[str, str]]:
    return [(module, imported) for module in modules() if wanted(module) for imported in sorted(imports_of(module))]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_the_packages_that_the_map_allows(package):
    allowed = MAY_IMPORT[package] | {package}
    imports = imports_of_modules(lambda module: package_of(module) == package and module not in ("app", "app.cli"))  # these see all
    assert [pair for pair in imports if is_ours(pair[1]) and package_of(pair[1]) not in allowed and pair not in FOR_TYPES_ONLY] == []


def test_the_map_names_every_package():
    assert {package_of(module) for module in modules()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("core", CORES)
def test_a_core_imports_cores_and_values_only(core):
    inside = [module for module in modules() if is_one_of(module, (core,))]
    assert inside, f"{core} does not exist"
    imports = imports_of_modules(inside.__contains__)
    assert [pair for pair in imports if is_ours(pair[1]) and not is_one_of(pair[1], CORES + VALUES)] == []


def test_a_core_imports_no_web_framework_no_driver_and_no_gevent():
    imports = imports_of_modules(lambda module: is_one_of(module, CORES))
    assert [pair for pair in imports if pair[1].split(".")[0] in NOT_IN_A_CORE] == []


def test_a_core_imports_nothing_of_the_standard_library_that_reads_a_clock_a_file_or_a_socket():
    imports = imports_of_modules(lambda module: is_one_of(module, CORES))
    assert [pair for pair in imports if pair[1].split(".")[0] in sys.stdlib_module_names - PURE_STANDARD_LIBRARY] == []


def test_only_faces_import_flask():
    faces = (
        "app",
        "app.cli",
        "app.http",
        "app.http.*",
        "app.realtime.server",
        "app.realtime.namespace",
        "app.realtime.transport.*",
        "app.telemetry.cli",
        "app.telemetry.importing.command",
        "app.telemetry.spool.commands",
    )
    imports = imports_of_modules(lambda module: not is_one_of(module, faces) and not module.endswith(".routes"))
    assert [pair for pair in imports if pair[1].split(".")[0] in FLASK] == []


def test_a_database_driver_is_imported_only_where_something_is_stored():
    places = {"sinks", "store", "storage", "log", "archive", "wiring", "transport", "http", "cli", "document"}
    imports = imports_of_modules(lambda module: not places & set(module.split(".")))
    assert [pair for pair in imports if pair[1].split(".")[0] in DATABASES] == []
