"""Figures: what they show for modules whose answer is known."""

from types import SimpleNamespace

import pytest
import torch

from sbflow.figure import loss_curve, save_figure
from sbflow.figure.coupling import CouplingFigure
from sbflow.figure.evidence import EvidenceFigure
from sbflow.figure.translation import TranslationGrid
from sbflow.notebook import estimate_log_z


class Shift:
    """Translates by adding or taking away one."""

    def translate(self, x, direction, **_):
        return x + 1 if direction == "forward" else x - 1


def data(*shape):
    split = SimpleNamespace(x0=torch.zeros(30, *shape), x1=torch.ones(30, *shape))
    return SimpleNamespace(split=lambda name: split)


def test_translation_grid_shows_the_input_above_two_translations():
    figure = TranslationGrid(num_images=5)(Shift(), data(1, 8, 8))
    forward, backward = (axes.images[0].get_array() for axes in figure.axes)
    # three rows of five 8-pixel images with a border of one; grey is 0.5, white 1
    assert forward.shape == backward.shape == (28, 46, 3)
    assert forward[1, 1, 0] == 0.5 and forward[10, 1, 0] == 1 and forward[19, 1, 0] == 1
    assert backward[1, 1, 0] == 1 and backward[10, 1, 0] == 0.5


def test_coupling_figure_has_x0_across_and_x1_up():
    figure = CouplingFigure(num_samples=10)(Shift(), data(2))
    for axes in figure.axes:
        points = axes.collections[0].get_offsets()
        assert len(points) == 10
        assert (points == [0.0, 1.0]).all()


@pytest.mark.parametrize("dim", [1, 3])
def test_evidence_figure_draws_the_path_and_samples_of_any_dimension(dim):
    evidence = estimate_log_z(lambda x: -(x**2).sum(1), dim, num_particles=100, num_steps=4)
    module = SimpleNamespace(estimate=lambda **_: evidence)
    path = EvidenceFigure()(module).axes[0]
    assert len(path.lines[0].get_xdata()) == 5
    assert path.lines[0].get_ydata().max() <= 1 + 1e-9


def test_loss_curve_reads_the_columns_of_training_only(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,test/msd,train/loss,train/msd\n0,1,,2.5,\n0,3,,1.5,0.25\n0,5,9.0,,\n")
    figure = loss_curve(file)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "msd"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.5, 1.5]
    save_figure(figure, tmp_path / "new" / "loss.png")
    assert (tmp_path / "new" / "loss.png").read_bytes().startswith(b"\x89PNG")
