"""``report.html`` in a run folder: one file to send to a colleague, readable offline and without scripts."""

import json
import platform
import re
import shlex
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import sbflow
from sbflow.atomic import replacing
from sbflow.callback.metrics_file import read_rows
from sbflow.smc import Evidence

__all__ = ["record_command", "write_report"]

COMMAND = "command.txt"
"""Name of the file that keeps how a run was started."""

PAPERS = {
    "SchrodingerBridgeFlow": ("Schrödinger Bridge Flow for Unpaired Data Translation", "2409.09347"),
    "ParticleDenoisingDiffusionSampler": ("Particle Denoising Diffusion Sampler", "2402.06320"),
    "ScoreDiffusion": ("Target Score Matching", "2402.08667"),
}
"""Title and arXiv number of what an algorithm comes from."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c2330; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin-bottom: 0 }}
h2 {{ font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #d5dae3 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eceff4 }}
th {{ font-weight: 600 }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums }}
figure {{ margin: 1rem 0 }}
figcaption, .small {{ color: #5b6577; font-size: .9rem }}
img {{ max-width: 100%; height: auto }}
pre {{ background: #f4f6f9; padding: .8rem; overflow-x: auto; font-size: .85rem }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="small">{subtitle}</p>
{sections}
</body>
</html>
"""


def record_command(folder: Path) -> None:
    """Keep how the run was started, for the report: the command line without the folder that it chose."""
    config = HydraConfig.get()
    # the command line marks options that no yaml names
    words = [word.removeprefix("++") for word in config.overrides.task]
    kept = [shlex.quote(word) for word in words if not word.startswith("run_dir=")]
    with replacing(folder / COMMAND) as file:
        file.write((" ".join(["sbflow", config.job.config_name, *kept]) + "\n").encode())


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what is in a run folder, and return it.

    Config, metrics, figures and evidence are shown as far as they are there. Images are part of the page; nothing is
    fetched, and there are no scripts.

    Args:
        folder: a run folder of training or sampling.
    """
    config = _config(folder)
    sections = [
        ("Set-up", _parts(config)),
        ("Evidence", _evidence(folder)),
        ("Metrics", _metrics(folder)),
        ("Training", _training(folder)),
        ("Figures", _figures(folder)),
        ("Reproduce", _reproduce(folder)),
        ("Configuration", _configuration(folder)),
    ]
    page = PAGE.format(
        title=escape(_title(config)),
        subtitle=_subtitle(folder, config),
        sections="\n".join(f"<section>\n<h2>{name}</h2>\n{body}\n</section>" for name, body in sections if body),
    )
    with replacing(folder / "report.html") as file:
        file.write(page.encode())
    return folder / "report.html"


def _config(folder: Path) -> dict[str, Any]:
    """The run's config as it was written, interpolations included."""
    file = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    return {str(key): value for key, value in config.items()} if isinstance(config, dict) else {}


def _class(part: Any) -> str:
    return str(part["_target_"]).rpartition(".")[2] if isinstance(part, dict) and "_target_" in part else ""


def _title(config: dict[str, Any]) -> str:
    """The algorithm and what it worked on; a particle sampler's data are its own samples."""
    subject = _class(config.get("target")) or _class(config.get("data"))
    return " on ".join(filter(None, (_class(config.get("algorithm")), subject))) or "Run of sbflow"


def _subtitle(folder: Path, config: dict[str, Any]) -> str:
    written = f"Run {escape(folder.resolve().name)}, reported by sbflow {sbflow.__version__}"
    machine = f"Python {platform.python_version()}, torch {escape(torch.__version__)}"
    paper = PAPERS.get(_class(config.get("algorithm")))
    link = f' · method: <a href="https://arxiv.org/abs/{paper[1]}">{escape(paper[0])}</a>' if paper else ""
    return f"{written}, {machine}{link}"


def _parts(config: dict[str, Any]) -> str:
    """One row for each part that has a class, with the options that were set, and one for the seed."""
    rows = [(key, _class(part), _options(part)) for key, part in config.items() if _class(part)]
    if "seed" in config:
        rows.append(("seed", str(config["seed"]), ""))
    return _table(("part", "class", "options"), rows) if rows else ""


def _options(part: dict[str, Any]) -> str:
    """Plain options; parts of a part have rows of their own."""
    plain = {name: value for name, value in part.items() if not str(name).startswith("_") and not _is_part(value)}
    texts = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in plain.items()}
    return ", ".join(f"{name} = {text}" for name, text in texts.items())


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) or str(value).startswith("${")


def _evidence(folder: Path) -> str:
    """The estimate as `sbflow sample` printed it."""
    if not (folder / "evidence.json").is_file():
        return ""
    evidence = Evidence.load(folder)
    headline, *lines = str(evidence).splitlines()
    # a long name leaves no gap between itself and its number
    rows = [[*re.split(r"\s{2,}", line.strip(), maxsplit=1), ""][:2] for line in lines]
    warning = f"<p>{escape(evidence.warning)}</p>" if evidence.warning else ""
    return f"<p><strong>{escape(headline)}</strong></p>\n{warning}\n{_table(('', ''), rows)}"


def _metrics(folder: Path) -> str:
    """One row for each metric, one column for each checkpoint that was measured."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    stages: dict[str, None] = {}
    for file in sorted(folder.glob("metrics*.json"), key=lambda file: (file.stem != "metrics", file.stem)):
        own = file.stem.removeprefix("metrics").removeprefix("-")
        for name, value in json.loads(file.read_text()).items():
            before, _, metric = name.rpartition("test/")
            stage = before.rstrip("/") or own or "at the end"
            stages[stage] = None
            found[metric][stage] = value
    rows = [[name, *(_number(values.get(stage)) for stage in stages)] for name, values in found.items()]
    return _table(("metric", *stages), rows, numbers=True) if rows else ""


def _training(folder: Path) -> str:
    """Last logged value of everything that was logged while training."""
    rows = read_rows(folder / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items() if "test/" not in name}
    steps, _ = last.pop("step", None), last.pop("epoch", None)
    if not last:
        return ""
    table = _table(
        ("logged", "last value"), [(name, _number(value)) for name, value in sorted(last.items())], numbers=True
    )
    return f"<p>{escape(str(steps))} steps.</p>\n{table}"


def _figures(folder: Path) -> str:
    """All figures, those of the result before the curves of training."""
    files = sorted((folder / "figures").rglob("*.png"), key=lambda file: (file.stem == "loss", file))
    return "\n".join(_figure(file, folder) for file in files)


def _figure(file: Path, folder: Path) -> str:
    name = escape(file.relative_to(folder / "figures").with_suffix("").as_posix().replace("_", " "))
    image = b64encode(file.read_bytes()).decode()
    return (
        f'<figure>\n<img alt="{name}" src="data:image/png;base64,{image}">\n<figcaption>{name}</figcaption>\n</figure>'
    )


def _reproduce(folder: Path) -> str:
    file = folder / COMMAND
    return f"<pre>{escape(file.read_text().strip())}</pre>" if file.is_file() else ""


def _configuration(folder: Path) -> str:
    file = folder / "config.yaml"
    if not file.is_file():
        return ""
    return f"<details>\n<summary>config.yaml</summary>\n<pre>{escape(file.read_text())}</pre>\n</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table; with ``numbers`` every column but the first is aligned to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if numbers and k else "" for k in range(len(cells))]
        columns = "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{columns}</tr>"

    above = f"<thead>{line(head, 'th')}</thead>\n" if any(head) else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f"<table>\n{above}<tbody>\n{body}\n</tbody>\n</table>"


def _number(value: Any) -> str:
    """Five digits; what is no number as it is, what was not measured as nothing."""
    if value is None:
        return ""
    try:
        return f"{float(value):.5g}"
    except ValueError:
        return str(value)
