"""``sbflow export``: a trained model as files that travel: weights, config, data statistics, model card."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import save
from torch import Tensor

import sbflow
from sbflow.atomic import replacing
from sbflow.callback import FORMAT
from sbflow.command.build import check_type
from sbflow.command.exported import GRAPH, drift_graph, write_graph
from sbflow.command.run import EXTRA, WEIGHTS, Run, load_run, write_config, write_json

__all__ = ["export", "load"]

CARD = """---
library_name: sbflow
tags: [{tag}]
---

# {title}

Trained with sbflow {version}. Load it with

```python
import sbflow

model = sbflow.load("{folder}")
```

which builds sbflow's own classes from `config.yaml` and reads the weights from `{weights}`; nothing in these files is
executed.
{graph}
| | |
|---|---|
| algorithm | {algorithm} |
| data | {data} |
| shape of one sample | {shape} |
| parameters | {parameters:,} |

## Measured

{metrics}
"""


GRAPH_NOTE = """
`{file}` is the averaged drift as a graph of torch, for any number of samples; it needs torch, not sbflow. As
`translate` does with `method="euler"`:

```python
import torch

drift, steps, epsilon = torch.export.load("{file}").module(), 30, {epsilon}
with torch.no_grad():
    for k in range(steps):
        x = x + drift(x, torch.full((len(x),), k / steps), torch.zeros(len(x), dtype=torch.long)) / steps
        x = x + (k + 1 < steps) * (epsilon / steps) ** 0.5 * torch.randn_like(x)  # without noise in the last step
```

"""


def export(config: DictConfig) -> Path:
    """Write the model named by ``checkpoint`` into the folder ``output``, and return it."""
    for name, annotation in (("checkpoint", str), ("output", str), ("graph", bool), ("trust", bool)):
        check_type(name, config[name], annotation)
    folder = Path(config.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"output={folder} exists and is not an empty folder; choose another")
    run = load_run(config.checkpoint, trust=config.trust)
    graph = drift_graph(run.algorithm) if config.graph else None
    _write_weights(run.algorithm.state_dict(), folder)
    write_config(folder, run.config)
    metrics = _metrics(run)
    if metrics:
        write_json(folder / "metrics.json", metrics)
    write_json(folder / "statistics.json", _statistics(run.algorithm))
    if graph is not None:
        write_graph(graph, run.algorithm, folder / GRAPH)
    with replacing(folder / "README.md") as file:
        file.write(_card(run, folder, metrics, graph=config.graph).encode())
    # last, as it marks the export as whole
    write_json(folder / "export.json", {"sbflow_format": FORMAT, "sbflow_version": sbflow.__version__})
    print(f"exported {config.checkpoint} -> {folder}")
    return folder


def load(path: str | Path, *, trust: bool = False) -> Any:
    """Load a trained model, in evaluation mode on the CPU.

    Args:
        path: run folder, checkpoint file, or folder of an export.
        trust: build classes from outside sbflow that the saved config names.

    Raises:
        FileNotFoundError: no such run.
        ValueError: unreadable, of a newer format, or naming classes from outside sbflow.
    """
    return load_run(path, trust=trust).algorithm


def _write_weights(state: dict[str, Any], folder: Path) -> None:
    """Tensors go into safetensors; what else a module keeps (tuned time grids) into a file of plain data."""
    # safetensors refuses tensors that share memory
    weights = {name: x.detach().cpu().contiguous().clone() for name, x in state.items() if isinstance(x, Tensor)}
    with replacing(folder / WEIGHTS) as handle:
        handle.write(save(weights, metadata={"format": "pt", "sbflow_format": str(FORMAT)}))
    extra = {name: value for name, value in state.items() if name not in weights}
    if extra:
        with replacing(folder / EXTRA) as handle:
            torch.save(extra, handle)


def _statistics(algorithm: Any) -> dict[str, Any]:
    """What the model knows of its data: small buffers, by their names."""
    return {name: value.tolist() for name, value in algorithm.named_buffers() if value.numel() <= 1000}


def _metrics(run: Run) -> dict[str, float]:
    file = run.folder / (f"metrics-{run.name}.json" if run.name else "metrics.json")
    return json.loads(file.read_text()) if file.is_file() else {}


def _card(run: Run, folder: Path, metrics: dict[str, float], *, graph: bool) -> str:
    algorithm = run.config.algorithm._target_.rpartition(".")[2]
    data = (run.config.get("data") or {}).get("_target_", "").rpartition(".")[2]
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    return CARD.format(
        tag="schrodinger-bridge" if hasattr(run.algorithm, "translate") else "sequential-monte-carlo",
        title=f"{algorithm} on {data or 'unnamed data'}",
        version=sbflow.__version__,
        folder=folder.name,
        weights=WEIGHTS,
        graph=GRAPH_NOTE.format(file=GRAPH, epsilon=run.algorithm.process.epsilon) if graph else "",
        algorithm=algorithm,
        data=data,
        shape=list(run.config.get("event_shape") or []),
        parameters=sum(p.numel() for p in run.algorithm.parameters()),
        metrics="\n".join(["| metric | value |", "|---|---|", *rows])
        if rows
        else "Nothing yet: see `sbflow evaluate`.",
    )
