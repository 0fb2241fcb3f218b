import json

import pytest

from sbflow.figure.log_z_against_steps import log_z_against_steps


def run(folder, num_steps, **metrics):
    folder.mkdir(parents=True)
    values = {f"test/{name}": value for name, value in metrics.items()} | {"test/num_steps": float(num_steps)}
    (folder / "metrics.json").write_text(json.dumps(values))


def test_trained_and_untrained_are_drawn_over_the_steps_in_order(tmp_path):
    for name, k, mean in (("10", 16, -0.1), ("2", 4, -0.9)):
        run(
            tmp_path / name,
            k,
            log_z_mean=mean,
            log_z_sd=0.1,
            log_z_bias=mean - 0.5,
            log_z_mean_untrained=mean - 3,
            log_z_sd_untrained=0.4,
        )
    (axes,) = log_z_against_steps(tmp_path).axes
    handles, labels = axes.get_legend_handles_labels()
    drawn = dict(zip(labels, handles, strict=True))
    assert list(drawn["trained"].lines[0].get_ydata()) == [-0.9, -0.1]
    assert list(drawn["untrained"].lines[0].get_ydata()) == [-3.9, -3.1]
    assert list(drawn["trained"].lines[0].get_xdata()) == pytest.approx([4, 16], rel=0.05)
    assert list(drawn["reference"].get_ydata()) == pytest.approx([0.5, 0.5])


def test_runs_without_a_reference_or_an_untrained_part_are_drawn_too(tmp_path):
    run(tmp_path / "0", 8, log_z_mean=2.0, log_z_sd=0.1)
    run(tmp_path / "1", 8, msd=2.0)
    (axes,) = log_z_against_steps(tmp_path).axes
    assert "reference" not in axes.get_legend_handles_labels()[1]


def test_a_folder_without_estimates_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no run with an estimate of log Z"):
        log_z_against_steps(tmp_path)
