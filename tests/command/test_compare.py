"""A sweep as one table; the measuring of other checkpoints than the last."""

import csv
import json

import pytest
from commands import TINY_BRIDGE, sbflow
from omegaconf import OmegaConf

from sbflow.command.compare import compare, runs_below


def fake_run(folder, metrics, **options):
    folder.mkdir(parents=True)
    config = {"algorithm": {"num_steps": 4, "process": {"epsilon": options.get("epsilon", 1.0)}}}
    config |= {
        "process": {"epsilon": options.get("epsilon", 1.0)},
        "seed": options.get("seed", 0),
        "run_dir": str(folder),
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))


def table(folder):
    with (folder / "runs.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_sweep_becomes_one_table_of_what_differs_and_what_came_out(tmp_path, capsys):
    for k, epsilon in enumerate((0.5, 1.0, 2.0)):
        fake_run(tmp_path / str(k), {"test/msd": epsilon / 10}, epsilon=epsilon)
    fake_run(tmp_path / "10", None, epsilon=4.0)
    result = sbflow("evaluate", f"checkpoint={tmp_path}", capsys=capsys)
    assert result.code == 0
    assert table(tmp_path) == [
        {"run": str(k), "process.epsilon": str(epsilon), "test/msd": str(epsilon / 10)}
        for k, epsilon in enumerate((0.5, 1.0, 2.0))
    ]
    assert "process.epsilon" in result.out and "test/msd" in result.out
    assert "no metrics yet" in result.err
    assert (tmp_path / "figures" / "process.epsilon.png").stat().st_size > 1000


def test_many_runs_are_printed_in_tables_that_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for k in range(9):
        fake_run(tmp_path / f"process.epsilon={k}.5,seed={k}", {"test/frechet": 1234.5 + k, "test/msd": 0.1}, seed=k)
    compare(tmp_path, runs_below(tmp_path))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    values = [value for line in lines if "test/frechet" in line for value in line.split("│")[2:-1]]
    assert [float(value) for value in values] == [pytest.approx(1234.5 + k, abs=0.51) for k in range(9)]


def test_a_sweep_of_estimates_is_drawn_by_its_main_numbers(tmp_path, capsys):
    options = ("whitening=standard", "num_particles=20", "num_steps=2,4", "algorithm.num_probes=0")
    assert sbflow("sample", "-m", "target=funnel", *options, f"run_dir={tmp_path / 'sweep'}").code == 0
    assert sbflow("evaluate", f"checkpoint={tmp_path / 'sweep'}", capsys=capsys).code == 0
    assert [row["num_steps"] for row in table(tmp_path / "sweep")] == ["2", "4"]
    assert (tmp_path / "sweep" / "figures" / "num_steps.png").stat().st_size > 1000


def test_an_option_with_brackets_or_of_great_length_is_printed_as_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for k, word in enumerate(("[bold]", ":smile:", "[/x]", "long " * 70)):
        fake_run(tmp_path / str(k), {"test/msd": 0.1}, seed=word)
    compare(tmp_path, runs_below(tmp_path))
    out = capsys.readouterr().out
    assert all(word in out for word in ("[bold]", ":smile:", "[/x]", "test/msd"))
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_runs_are_found_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "deeper/2"):
        fake_run(tmp_path / name, {})
    assert [str(run.relative_to(tmp_path)) for run in runs_below(tmp_path)] == ["9", "10", "deeper/2"]
    assert runs_below(tmp_path / "9") == []


def test_seeds_are_compared_without_a_figure_over_them(tmp_path):
    for seed in range(2):
        fake_run(tmp_path / str(seed), {"test/msd": 0.1 * seed}, seed=seed)
    assert compare(tmp_path, runs_below(tmp_path)) == {"runs": 2.0}
    assert [row["seed"] for row in table(tmp_path)] == ["0", "1"]
    assert not (tmp_path / "figures").exists()


def test_a_sweep_without_numbers_is_refused(tmp_path):
    fake_run(tmp_path / "0", None)
    with pytest.raises(ValueError, match="none of its 1 runs was measured"):
        compare(tmp_path, runs_below(tmp_path))


def test_a_stage_is_measured_beside_the_run_and_not_over_it(tmp_path):
    run = tmp_path / "run"
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={run}").code == 0
    before = {name: (run / name).read_bytes() for name in ("metrics.json", "figures/coupling.png", "figures/loss.png")}
    assert sbflow("evaluate", f"checkpoint={run / 'checkpoints' / 'stage-pretrain.ckpt'}").code == 0
    assert before == {name: (run / name).read_bytes() for name in before}
    alone = json.loads((run / "metrics-stage-pretrain.json").read_text())
    whole = json.loads((run / "metrics.json").read_text())
    assert alone["test/joint_kl"] == pytest.approx(whole["pretrain/test/joint_kl"])
    assert (run / "figures" / "stage-pretrain" / "coupling.png").is_file()
