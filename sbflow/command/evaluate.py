"""``sbflow evaluate``: measure a trained run and draw its figures, or compare the runs of a sweep."""

from pathlib import Path
from typing import Any

from lightning import seed_everything
from omegaconf import DictConfig

from sbflow.command.build import build, check_type
from sbflow.command.compare import compare, runs_below
from sbflow.command.report import write_report
from sbflow.command.run import Run, load_run, load_weights, print_metrics, write_json
from sbflow.figure import loss_curve, save_figure

__all__ = ["evaluate", "measure"]


def evaluate(config: DictConfig) -> dict[str, float]:
    """Measure the run named by ``checkpoint`` and print its table; a folder of runs is compared instead."""
    check_type("checkpoint", config.checkpoint, str)
    check_type("trust", config.trust, bool)
    runs = runs_below(Path(config.checkpoint))
    if runs:
        return compare(Path(config.checkpoint), runs)
    run = load_run(config.checkpoint, needs="max_steps", trust=config.trust)
    seed_everything(run.config.seed, verbose=False)
    data = build(run.config, "data")
    data.prepare_data()
    metrics = measure(run, data)
    write_report(run.folder)
    print_metrics(f"run folder: {run.folder}{f', {run.name}' if run.name else ''}", metrics)
    return metrics


def measure(run: Run, data: Any) -> dict[str, float]:
    """Write ``metrics.json`` and the figures of a run; numbers of earlier stages carry the stage's name in front.

    Another checkpoint than the run's last one is measured alone, into files that carry its name. A metric or a figure
    that is null is left out.
    """
    metrics = {} if run.config.get("metric") is None else _metrics(run, data)
    write_json(run.folder / (f"metrics-{run.name}.json" if run.name else "metrics.json"), metrics)
    figures = run.folder / "figures" / run.name
    if run.config.get("figure") is not None:
        save_figure(build(run.config, "figure")(run.algorithm, data), figures / f"{_name(run.config.figure)}.png")
    if (run.folder / "metrics.csv").is_file() and not run.name:
        save_figure(loss_curve(run.folder / "metrics.csv"), figures / "loss.png")
    return metrics


def _metrics(run: Run, data: Any) -> dict[str, float]:
    """Of the run's model, and of the others that it has kept."""
    metric = build(run.config, "metric")
    metrics: dict[str, float] = metric(run.algorithm, data)
    for file in [] if run.name else _others(run.folder / "checkpoints"):
        other = build(run.config, "algorithm")
        load_weights(other, file)
        stage = file.stem.removeprefix("stage-")
        metrics |= {f"{stage}/{name}": value for name, value in metric(other, data).items()}
    return metrics


def _others(folder: Path) -> list[Path]:
    """Checkpoints that are worth a comparison with the last one."""
    return [*sorted(folder.glob("stage-*.ckpt")), *folder.glob("best.ckpt")]


def _name(part: DictConfig) -> str:
    """The module of a figure's class: ``sbflow.figure.translation.TranslationGrid`` is drawn to translation.png."""
    return part["_target_"].split(".")[-2]
