"""Running the command line inside the test process."""

import sys

from hydra.core.global_hydra import GlobalHydra

from sbflow.cli import main


class Result:
    """Exit code and what was printed."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err


def sbflow(*arguments, capsys=None):
    """Run ``sbflow ARGUMENTS`` and return its exit code and output; the argument vector is restored."""
    before = sys.argv
    sys.argv = ["sbflow", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    captured = capsys.readouterr() if capsys is not None else None
    return Result(code, captured.out if captured else "", captured.err if captured else "")


TINY_GLYPHS = (
    "data.num_train=200",
    "data.num_test=60",
    "data.batch_size=16",
    "algorithm.pretrain_steps=6",
    "algorithm.finetune_steps=3",
    "algorithm.num_steps=2",
    "metric.num_samples=40",
    "metric.num_steps=2",
    "figure.num_images=4",
)
TINY_BRIDGE = (
    "experiment=sbf_gaussian",
    "network.hidden=[8]",
    "data.dim=2",
    "data.num_samples=300",
    "data.batch_size=16",
    "algorithm.pretrain_steps=8",
    "algorithm.finetune_steps=6",
    "algorithm.num_steps=2",
    "metric.num_samples=60",
    "metric.num_steps=2",
    "figure.num_samples=20",
)
TINY_PARTICLES = (
    "algorithm.updates_per_refinement=4",
    "data.refresh_every=2",
    "algorithm.num_particles=50",
    "algorithm.num_steps=3",
    "metric.num_particles=50",
    "metric.num_seeds=3",
)
