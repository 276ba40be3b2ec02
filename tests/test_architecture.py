"""The plan of the rooms, held by reading every file: who may import whom, and what each must bring."""

import ast
import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import nnunet_kd
from nnunet_kd import cli

LIBRARY = Path(nnunet_kd.__file__).parent
LEAVES = ("trainers", "dataset_conversion", "recon")
CHECKOUT = LIBRARY.parent
IN_CHECKOUT = pytest.mark.skipif(not (CHECKOUT / "setup.py").is_file(), reason="reads the checkout")

# reconstruction stands on these, and has nothing to do with nnU-Net
WITHOUT_NNUNET = (
    "nnunet_kd.losses",
    "nnunet_kd.distillation.features",
    "nnunet_kd.distillation.objective",
    "nnunet_kd.evaluation.statistics",
    "nnunet_kd.deployment.runtimes",
    "nnunet_kd.planning.json_blocks",
)
BASE_PACKAGES = {
    *("torch", "numpy", "scipy", "matplotlib", "nibabel", "tqdm", "monai", "distributed", "nnunetv2"),
    *("batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "nnunet_kd"),
}
MAX_LINES = 400
WRITTEN = (".py", ".md", ".toml", ".yml", ".cff", ".json")


def _leaf_folder(name: str) -> Path:
    return Path(import_module(f"nnunet_kd.{name}").__file__ or "").parent


def _modules() -> dict[str, Path]:
    """Return every module of the package, the leaves included, as in a wheel: dotted name to file."""
    roots = {"nnunet_kd": LIBRARY, **{f"nnunet_kd.{name}": _leaf_folder(name) for name in LEAVES}}
    return {
        ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): file
        for package, root in roots.items()
        for file in sorted(root.rglob("*.py"))
    }


MODULES = _modules()


def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _is_leaf(module: str) -> bool:
    return module.split(".")[1:2] != [] and module.split(".")[1] in LEAVES


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported below a node, ``from a import b`` as ``a.b``; relative imports begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _imports_at_load(tree: ast.Module) -> Iterator[str]:
    """Yield what importing the module imports: not the bodies of functions, nor what only a type checker reads."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        else:
            pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            handlers = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.excepthandler)]
            pending += [statement for handler in handlers for statement in handler.body]


def _loaded_modules(module: str) -> set[str]:
    """Return the modules of ours that importing ``module`` loads, itself and its parents included."""
    known: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in known or name not in MODULES:
            continue
        known.add(name)
        found = [name.rpartition(".")[0], *_imports_at_load(_tree(name))]
        pending += [*found, *(imported.rpartition(".")[0] for imported in found)]
    return known


def _strings(tree: ast.AST) -> Iterator[str]:
    yield from (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_the_reader_of_imports_sees_what_it_should() -> None:
    guarded = "if TYPE_CHECKING:\n    import c\ntry:\n    from d import e\nexcept E:\n    import f\n"
    text = f"import a.b\n{guarded}def g():\n    import h\n"
    assert set(_imports_at_load(ast.parse(text))) == {"a.b", "d.e", "f"}
    assert set(_imports(ast.parse(text + "from .i import j\n"))) == {"a.b", "c", "d.e", "f", "h", ".i.j"}


@pytest.mark.parametrize("module", [name for name in MODULES if not _is_leaf(name) and "nnunet_ext" not in name])
def test_the_library_imports_no_leaf(module: str) -> None:
    """The program loads leaves by name when a verb asks; the shim exists to re-export one. Nothing else may."""
    assert not [name for name in _imports(_tree(module)) if _is_leaf(name) and name.startswith("nnunet_kd.")]
    if module != cli.__name__:
        named = [
            text for text in _strings(_tree(module)) if re.fullmatch(rf"nnunet_kd\.({'|'.join(LEAVES)})[.\w]*", text)
        ]
        assert not named


@pytest.mark.parametrize("module", [name for name in MODULES if _is_leaf(name)])
def test_a_leaf_imports_no_other_leaf(module: str) -> None:
    home = module.split(".")[1]
    others = [f"nnunet_kd.{leaf}" for leaf in LEAVES if leaf != home]
    assert not [name for name in _imports(_tree(module)) if name.startswith(tuple(others))]


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_absolute_and_by_our_name(module: str) -> None:
    bare = [*LEAVES, "."]
    assert not [name for name in _imports(_tree(module)) if name.startswith(".") or name.split(".")[0] in bare]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(WITHOUT_NNUNET)])
def test_what_reconstruction_stands_on_loads_no_nnunet(module: str) -> None:
    loaded = {name for ours in _loaded_modules(module) for name in _imports_at_load(_tree(ours))}
    assert not [name for name in loaded if name.split(".")[0] in ("nnunetv2", "batchgeneratorsv2")]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("nnunet_kd.trainers")])
def test_trainers_load_with_the_base_dependencies(module: str) -> None:
    """One missing optional library would end nnU-Net's look-up for every trainer."""
    loaded = {name.split(".")[0] for ours in _loaded_modules(module) for name in _imports_at_load(_tree(ours))}
    assert loaded <= BASE_PACKAGES | set(sys.stdlib_module_names)


@pytest.mark.parametrize("code", ["import nnunet_kd", "from nnunet_kd.cli import main; main(['--help'])"])
def test_the_package_and_its_help_load_nothing_heavy(code: str) -> None:
    heavy = ("torch", "numpy", "nnunetv2", "monai", "scipy", "matplotlib", "distributed")
    check = f"import sys; print([name for name in {heavy!r} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


def _public_nodes(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public_nodes(node)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_public_name_is_documented(module: str) -> None:
    tree = _tree(module)
    assert ast.get_docstring(tree), "the module"
    assert not [node.name for node in _public_nodes(tree) if not ast.get_docstring(node)]


@pytest.mark.parametrize("module", MODULES)
def test_no_file_outgrows_its_room(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", [name for name in MODULES if name != "nnunet_kd.__main__"])
def test_the_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0


def _tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:  # an unpacked archive
        return [file for top in CHECKOUT.glob("[!.]*") for file in [top, *top.rglob("*")] if file.suffix in WRITTEN]
    return [CHECKOUT / name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


@IN_CHECKOUT
def test_no_path_of_a_developers_machine_is_in_the_tree() -> None:
    # people of examples are called ada
    home = rb"/(home|Users)/(?!ada\b)\w+/|[A-Z]:\\Users\\(?!ada\b)\w+|/ro[o]t/"
    folders = "|".join(re.escape(os.fspath(path)) for path in (CHECKOUT, Path.home()) if len(path.parts) > 2)
    pattern = re.compile(home + b"|" + folders.encode())
    assert not [file for file in _tracked_files() if pattern.search(file.read_bytes())]


@IN_CHECKOUT
def test_tests_are_no_package_and_have_no_relative_imports() -> None:
    assert not list((CHECKOUT / "tests").rglob("__init__.py"))
    for file in (CHECKOUT / "tests").rglob("*.py"):
        assert not [name for name in _imports(ast.parse(file.read_text(encoding="utf-8"))) if name.startswith(".")]
