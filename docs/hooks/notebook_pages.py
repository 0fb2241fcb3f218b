"""Shows every notebook as a page: its text and its code, and the notebook itself to download."""

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def on_files(files: Files, config: Any) -> Files:
    """Add a page and a download per notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page = as_markdown(json.loads(path.read_text()), path.name)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
        files.append(File.generated(config, f"tutorials/{path.name}", abs_src_path=str(path)))
    return files


def as_markdown(notebook: dict[str, Any], name: str) -> str:
    """Cells one after another; outputs are stripped from the repository, and made by whoever runs it."""
    cells = [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```"
        for cell in notebook["cells"]
    ]
    download = f"[Download the notebook]({name}), or open it in `notebooks/`."
    return "\n\n".join([cells[0], download, *cells[1:]])
