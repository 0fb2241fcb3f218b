"""Nothing in the package reads a file in a way that could run what is in it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbflow

PACKAGE = Path(sbflow.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# modules that build objects, or run code, from what a file says
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "code"}
# commands of the shell
BANNED_MODULES |= {"subprocess", "pty", "commands"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
BANNED_ATTRIBUTES = {
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.hub.load",
    "pandas.read_pickle",
}
# last part of a call -> the keyword that makes it harmless, with its value
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "load_from_checkpoint": ("weights_only", True),
}
# modules that import, by a name that is not written in them, what the user names on the command line or in Python
DYNAMIC_IMPORTS = {"__init__.py", "cli.py", "command/build.py", "command/trainer.py", "smc/inference_data.py"}
DYNAMIC_IMPORTS |= {"target/callable.py"}


def dotted(node: ast.expr) -> str:
    """``torch.jit.load`` of the expression that says so."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unsafe_call(node: ast.Call) -> bool:
    name = dotted(node.func)
    if name in BANNED_CALLS:
        return True
    keywords = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
    if name.endswith(".fit") and any(word.arg == "ckpt_path" for word in node.keywords):
        return keywords.get("weights_only") is not True
    for call, (keyword, value) in NEEDED.items():
        if name == call or ("." not in call and name.endswith(f".{call}")):
            return keywords.get(keyword) is not value
    return False


def findings(source: str) -> list[str]:
    """Every place of a source that could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = list(imported(node))
        if isinstance(node, ast.Attribute):
            names.append(dotted(node))
        bad = any(name.split(".")[0] in BANNED_MODULES or name in BANNED_ATTRIBUTES for name in names)
        # ``from torch import load`` would hide what is called
        bad = bad or any(name in NEEDED for name in imported(node))
        if bad or (isinstance(node, ast.Call) and unsafe_call(node)):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_of_the_package_runs_what_it_reads(file):
    assert findings(file.read_text()) == []


def test_names_are_imported_at_run_time_in_known_places_only():
    dynamic = {"import_module", "get_object", "get_class", "get_method", "instantiate"}
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in dynamic
    }
    assert found == DYNAMIC_IMPORTS


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "np.load(file, allow_pickle=True)",
        "np.load(file)",
        "Module.load_from_checkpoint(file)",
        "trainer.fit(module, ckpt_path=file)",
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import subprocess as s",
        "yaml.load(text, Loader)",
        "from yaml import unsafe_load",
        "loader = yaml.unsafe_load",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "torch.jit.load(file)",
    ],
)
def test_what_is_unsafe_is_found(source):
    assert len(findings(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file, weights_only=True)",
        "np.load(file, allow_pickle=False)",
        "trainer.fit(module, data)",
        "trainer.fit(module, data, ckpt_path=file, weights_only=True)",
        "module.eval()",
        "yaml.safe_load(text)",
        "re.compile(text)",
        "safetensors.torch.load(data)",
    ],
)
def test_what_is_safe_is_left_alone(source):
    assert findings(source) == []
