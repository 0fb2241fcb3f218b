"""What the pages say is there: links, code, commands, equations."""

import ast
import json
import re
import shlex
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sbflow.cli import COMMANDS, _additive, config_dir
from sbflow.command.build import check_options

ROOT = config_dir().parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARTS = ("algorithm", "process", "network", "target", "whitening", "data", "metric", "figure", "callback", "trainer")

if not PAGES:
    pytest.skip("the pages are not part of an installed wheel", allow_module_level=True)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def all_commands():
    lines = [(page, line) for page in PAGES for block in blocks(page, "") for line in block.splitlines()]
    return [pytest.param(line, id=f"{page.stem}: {line}") for page, line in lines if line.startswith("sbflow ")]


def equations():
    rows = re.findall(
        r"^\| .* \| `(sbflow\S+)` \| `(tests/\S+)` \|$", (DOCS / "equations.md").read_text(), re.MULTILINE
    )
    return [pytest.param(function, test, id=test.partition("::")[2]) for function, test in rows]


def nav_pages(part):
    if isinstance(part, str):
        return [part]
    return [page for entry in (part.values() if isinstance(part, dict) else part) for page in nav_pages(entry)]


def test_the_navigation_lists_every_page_and_nothing_else():
    listed = nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    made = {f"tutorials/{notebook.stem}.md" for notebook in NOTEBOOKS}
    assert sorted(listed) == sorted({page.relative_to(DOCS).as_posix() for page in PAGES} | made)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages(page):
    made = {DOCS / "tutorials" / f"{notebook.stem}.md" for notebook in NOTEBOOKS}
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        file = (page.parent / link).resolve()
        assert file.is_file() or file in made, link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_fetched_and_no_path_of_a_machine_is_shown(page):
    text = page.read_text()
    assert not re.search(r"<(script|img|link)\b", text)
    assert not re.search(r"(?<![\w.])/(home|tmp|root|work)/", text)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_compiles_and_imports_what_exists(page):
    for block in blocks(page, "python"):
        check_imports(ast.parse(block))


def check_imports(tree):
    """Every name that is taken from sbflow is there; ``sbflow.name`` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "sbflow":
            for name in node.names:
                assert hasattr(import_module(node.module), name.name), f"{node.module}.{name.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sbflow":
            assert hasattr(import_module("sbflow"), node.attr), f"sbflow.{node.attr}"


@pytest.mark.parametrize("command", all_commands())
def test_a_command_composes_and_sets_options_that_exist(command):
    if ("submitit" in command or "slurm" in command) and find_spec("submitit") is None:
        pytest.skip("hydra-submitit-launcher is not installed")
    _, name, *arguments = shlex.split(command.partition("#")[0])
    assert name in COMMANDS
    if "--config-dir" in arguments:
        # the reader's own folder
        at = arguments.index("--config-dir")
        del arguments[at : at + 2]
        arguments = [argument for argument in arguments if argument != "network=small"]
    # of a sweep the first run
    arguments = [re.sub(r"(=[^\[{,]*),.*", r"\1", _additive(name, one)) for one in arguments if one != "-m"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(name, overrides=arguments, return_hydra_config="hydra/launcher" in command)
    # the data would tell
    if name == "train":
        config.event_shape = [1]
        if config.process.get("epsilon") == "auto":
            config.process.epsilon = 1.0
    # with a checkpoint its own parts are taken
    parts = [] if "checkpoint" in config and config.checkpoint is not None else PARTS
    for part in parts:
        if OmegaConf.select(config, part) is not None:
            check_options(config[part], part)


def test_the_commands_are_found():
    assert len(all_commands()) > 20


@pytest.mark.parametrize(("function", "test"), equations())
def test_an_equation_names_a_function_and_a_test_that_exist(function, test):
    module, *names = split_at_module(function)
    found = import_module(module)
    for name in names:
        found = getattr(found, name)
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), flags=re.MULTILINE), test


def split_at_module(path):
    """The public package, or the module within it, and what is looked up there."""
    root, package, *rest = path.split(".")
    # a function may share its module's name: only what is followed by a name of its own is a module
    if len(rest) > 1 and rest[0].islower():
        package = f"{package}.{rest.pop(0)}"
    return [f"{root}.{package}", *rest]


def test_every_row_of_the_equations_is_read():
    text = (DOCS / "equations.md").read_text()
    assert len(equations()) == text.count("tests/") and len(equations()) > 30


def test_formulas_of_docstrings_are_read_as_markdown():
    hook = load(DOCS / "hooks" / "docstrings.py", needs="griffe")
    text = "One :math:`a^2`, ``code``.\n\n    .. math:: x = y,\n        z\n\nEnd."
    assert hook.markdown(text) == "One $a^2$, `code`.\n\n    $$\n    x = y, z\n    $$\n\nEnd."


def test_a_notebook_becomes_a_page():
    hook = load(DOCS / "hooks" / "notebook_pages.py", needs="mkdocs")
    page = hook.as_markdown(json.loads(NOTEBOOKS[0].read_text()), NOTEBOOKS[0].name)
    assert page.startswith("# ") and f"]({NOTEBOOKS[0].name})" in page and "```python\n" in page


def load(file, *, needs):
    """A hook, which belongs to no package."""
    pytest.importorskip(needs)
    spec = spec_from_file_location(file.stem, file)
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook
