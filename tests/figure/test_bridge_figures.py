"""Figures of bridges and of several runs: what they show for modules and folders whose answer is known."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from sbflow.data.planar import Planar
from sbflow.figure import quality_over_runs
from sbflow.figure.coupling import CouplingFigure
from sbflow.figure.steps import QualityAgainstSteps
from sbflow.figure.trajectories import Trajectories
from sbflow.figure.translation import TranslationGrid


class Line:
    """Goes one to the right in equal steps, one to the left backwards."""

    def translate(self, x, direction, *, num_steps=30, seed=0, return_path=False):
        move = torch.tensor([1.0 if direction == "forward" else -1.0, 0.0])
        path = x + torch.linspace(0, 1, num_steps + 1)[:, None, None] * move
        return path if return_path else path[-1]


class Half:
    """A metric that depends on the steps as 1 / steps, and has a constant."""

    num_steps = 30

    def check(self, module, data):
        if data is None:
            raise ValueError("no data")

    def __call__(self, module, data):
        return {"test/error": 1 / self.num_steps, "test/error_backward": 2 / self.num_steps, "test/exact": 0.5}


def test_trajectories_start_at_the_data_and_end_at_the_translations():
    data = Planar(num_samples=10, num_test=30)
    figure = Trajectories(num_paths=5, num_samples=20, num_steps=4)(Line(), data)
    above, _, below, _ = figure.axes
    lines = above.collections[2].get_segments()
    assert len(lines) == 5 and lines[0].shape == (5, 2)
    x0 = data.split("test").x0
    assert torch.allclose(torch.as_tensor(lines[3][0]), x0[3].double())
    assert torch.allclose(torch.as_tensor(lines[3][-1]), x0[3].double() + torch.tensor([1.0, 0.0]))
    real, generated = (torch.as_tensor(points.get_offsets()) for points in below.collections)
    assert torch.allclose(real, data.split("test").x1[:20].double())
    assert torch.allclose(generated, x0[:20].double() + torch.tensor([1.0, 0.0]))


def test_trajectories_of_images_are_refused():
    with pytest.raises(ValueError, match=r"needs points in the plane, got samples of \[1, 8, 8\]"):
        Trajectories().check(Line(), SimpleNamespace(event_shape=(1, 8, 8)))


@pytest.mark.parametrize(
    ("figure", "shape", "message"),
    [
        (CouplingFigure(), (1, 8, 8), r"figure CouplingFigure needs vectors, got samples of shape \[1, 8, 8\]"),
        (TranslationGrid(), (5,), r"figure TranslationGrid needs images \[c, h, w\], got samples of \[5\]"),
    ],
)
def test_figures_refuse_data_they_cannot_show(figure, shape, message):
    with pytest.raises(ValueError, match=message):
        figure.check(Line(), SimpleNamespace(event_shape=shape))


def test_quality_against_steps_measures_each_number_of_steps_and_leaves_the_metric_alone():
    metric = Half()
    figure = QualityAgainstSteps(metric, num_steps=[10, 2])(None, "data")
    (axes,) = figure.axes
    forward, backward = axes.lines
    assert list(forward.get_xdata()) == [2, 10] and list(forward.get_ydata()) == [0.5, 0.1]
    assert list(backward.get_ydata()) == [1.0, 0.2] and axes.get_ylabel() == "error"
    assert metric.num_steps == 30


def test_quality_against_steps_takes_the_names_asked_for_and_the_refusals_of_its_metric():
    figure = QualityAgainstSteps(Half(), num_steps=(1, 2), keys=("test/exact",))(None, "data")
    assert [axes.get_ylabel() for axes in figure.axes] == ["exact"]
    with pytest.raises(ValueError, match="no data"):
        QualityAgainstSteps(Half()).check(None, None)
    with pytest.raises(ValueError, match="at least two different positive numbers, got \\[5\\]"):
        QualityAgainstSteps(Half(), num_steps=[5])
    with pytest.raises(ValueError, match="needs a metric with num_steps, got function"):
        QualityAgainstSteps(lambda *_: {})


def run_folder(folder, epsilon, seed, **metrics):
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "process": {"epsilon": epsilon}}))
    (folder / "metrics.json").write_text(json.dumps({f"test/{name}": value for name, value in metrics.items()}))
    return folder


def test_runs_are_averaged_over_seeds_and_sorted_by_the_option(tmp_path):
    folders = [
        run_folder(tmp_path / "a", 10.0, 0, msd=5.0, msd_backward=6.0),
        run_folder(tmp_path / "b", 0.1, 0, msd=1.0, msd_backward=2.0),
        run_folder(tmp_path / "c", 0.1, 1, msd=3.0, msd_backward=2.0),
    ]
    keys = ("test/msd", "test/msd_backward", "test/absent")
    figure = quality_over_runs(folders, option="process.epsilon", keys=keys)
    (axes,) = figure.axes
    line, _, (bars,) = axes.containers[0].lines
    assert list(line.get_xdata()) == [0.1, 10.0] and list(line.get_ydata()) == [2.0, 5.0]
    lower, upper = bars.get_segments()[0][:, 1]
    assert upper - lower == pytest.approx(2 * 2**0.5)
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "msd"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["forward", "backward"]


def test_estimates_are_runs_too(tmp_path):
    for k in (1, 2):
        (folder := tmp_path / str(k)).mkdir()
        (folder / "config.yaml").write_text(f"num_steps: {k}")
        values = {"log_z": -2.0 * k, "probe_log_z": None, "verdict": "reliable"}
        (folder / "evidence.json").write_text(json.dumps(values))
    folders = [tmp_path / "1", tmp_path / "2"]
    figure = quality_over_runs(folders, option="num_steps", keys=("log_z", "probe_log_z", "verdict"))
    (axes,) = figure.axes
    assert list(axes.containers[0].lines[0].get_ydata()) == [-2.0, -4.0] and axes.get_ylabel() == "log z"


def test_runs_without_the_option_or_the_number_are_refused(tmp_path):
    folder = run_folder(tmp_path / "a", 1.0, 0, msd=5.0)
    for option, key in (("process.sigma", "test/msd"), ("process.epsilon", "test/kid")):
        with pytest.raises(ValueError, match=f"none of the 1 runs has a number for {option} and one of {key}"):
            quality_over_runs([folder], option=option, keys=[key])
