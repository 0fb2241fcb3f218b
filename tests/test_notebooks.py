"""The notebooks as files; they are executed by ``pytest --nbmake notebooks``."""

import ast
import json

import pytest

from sbflow.cli import config_dir

NOTEBOOKS = sorted((config_dir().parent / "notebooks").glob("*.ipynb"))

if not NOTEBOOKS:
    pytest.skip("the notebooks are not part of an installed wheel", allow_module_level=True)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    return json.loads(request.param.read_text())["cells"]


def code(cells):
    sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    return ["".join(line for line in lines if not line.startswith("%")) for lines in sources]


def test_outputs_are_stripped(cells):
    kept = [cell for cell in cells if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"])]
    assert not kept


def test_the_first_cell_is_a_title(cells):
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")


def test_every_cell_compiles_and_takes_from_the_library_what_it_needs(cells):
    tree = ast.parse("\n".join(code(cells)))
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    # a density is what the reader brings; all else is to be found in the library
    assert all(isinstance(node, ast.FunctionDef) and node.name.startswith("log_") for node in defined)


def test_what_is_claimed_is_asserted(cells):
    assert any(isinstance(node, ast.Assert) for cell in code(cells) for node in ast.walk(ast.parse(cell)))


def test_no_path_of_a_machine_is_written(cells):
    assert not any("/home/" in cell or "/tmp/" in cell for cell in code(cells))
