"""``sbflow evaluate``: measure a trained run and draw its figures."""

from typing import Any

from lightning import seed_everything
from omegaconf import DictConfig

from sbflow.command.build import build, check_type
from sbflow.command.run import Run, load_run, load_weights, print_metrics, write_json
from sbflow.figure import loss_curve, save_figure

__all__ = ["evaluate", "measure"]


def evaluate(config: DictConfig) -> dict[str, float]:
    """Measure the run named by ``checkpoint`` and print its table."""
    check_type("checkpoint", config.checkpoint, str)
    run = load_run(config.checkpoint, needs="max_steps", trust=config.trust)
    seed_everything(run.config.seed, verbose=False)
    data = build(run.config, "data")
    data.prepare_data()
    metrics = measure(run, data)
    print_metrics(f"run folder: {run.folder}", metrics)
    return metrics


def measure(run: Run, data: Any) -> dict[str, float]:
    """Write ``metrics.json`` and the figures of a run; numbers of earlier stages carry the stage's name in front."""
    metric = build(run.config, "metric")
    metrics = metric(run.algorithm, data)
    for file in sorted((run.folder / "checkpoints").glob("stage-*.ckpt")):
        stage = file.stem.removeprefix("stage-")
        earlier = build(run.config, "algorithm")
        load_weights(earlier, file)
        metrics |= {f"{stage}/{name}": value for name, value in metric(earlier, data).items()}
    write_json(run.folder / "metrics.json", metrics)
    figures = run.folder / "figures"
    save_figure(build(run.config, "figure")(run.algorithm, data), figures / f"{_name(run.config.figure)}.png")
    if (run.folder / "metrics.csv").is_file():
        save_figure(loss_curve(run.folder / "metrics.csv"), figures / "loss.png")
    return metrics


def _name(part: DictConfig) -> str:
    """The module of a figure's class: ``sbflow.figure.translation.TranslationGrid`` is drawn to translation.png."""
    return part["_target_"].split(".")[-2]
