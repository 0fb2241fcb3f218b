import dataclasses
import errno
import json
import math

import pytest
import torch
from matplotlib.figure import Figure
from problems import GAUSSIAN

import sbflow
from sbflow import smc
from sbflow.potential import MixturePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times

PROCESS = OrnsteinUhlenbeck()


def evidence(replicates: int, n: int = 30, *, num_steps: int = 4, ess_threshold: float = 0.3) -> smc.Evidence:
    particles, path = smc.sample(
        smc.GuidedDenoising(PROCESS, MixturePotential(*GAUSSIAN[:3], PROCESS, GAUSSIAN.log_z)),
        torch.empty(replicates, n, 2, dtype=torch.float64),
        uniform_times(num_steps).flip(0),
        ess_threshold=ess_threshold,
    )
    return smc.Evidence.from_run(
        particles,
        path,
        10 + 2 * particles.x,
        times=uniform_times(num_steps).flip(0),
        cost=smc.Cost(77, 66),
        whitening_cost=smc.Cost(5, 4),
        seconds=1.5,
    )


def test_the_estimate_is_the_mean_of_the_replicates_and_its_error_their_spread():
    record = evidence(6)
    z = record.log_z_replicates.exp()
    assert record.log_z == pytest.approx(z.mean().log().item(), rel=1e-12)
    assert record.log_z_stderr == pytest.approx((z.std() / z.mean() / 6**0.5).item(), rel=1e-9)


def test_the_error_of_one_run_without_resampling_is_that_of_importance_sampling():
    record = evidence(1, ess_threshold=0.0)
    assert record.log_z_stderr == pytest.approx(math.sqrt((1 / record.ess - 1 / 30) * 30 / 29), rel=1e-9)


def test_the_spread_of_the_weights_stands_beside_what_the_grid_promises():
    record = evidence(4)
    assert record.weight_variance > 0 and "promised" not in str(record)
    promising = dataclasses.replace(record, predicted_variance=0.125)
    assert "in all, 0.125 promised by the grid of times" in str(promising)


def test_one_particle_says_nothing_about_its_error():
    assert not evidence(1, n=1).log_z_stderr < math.inf


def test_pooled_weights_count_every_run_by_its_own_constant():
    record = evidence(3, n=20)
    weights = record.log_weights.exp().reshape(3, 20)
    assert weights.sum().item() == pytest.approx(1.0)
    assert torch.allclose(weights.sum(1), record.log_z_replicates.softmax(0))
    assert record.samples.shape == (60, 2) and 1 <= record.ess <= 60
    assert record.ess == pytest.approx((1 / (weights**2).sum()).item())


def test_the_summary_holds_plain_numbers_and_survives_the_file(tmp_path):
    record = evidence(3)
    record.save(tmp_path)
    saved = json.loads((tmp_path / "evidence.json").read_text())
    assert saved == record.summary()
    required = {"log_z", "log_z_stderr", "ess", "num_steps", "num_particles", "density_evaluations", "seconds"}
    assert required <= saved.keys()
    assert (saved["num_steps"], saved["num_particles"], saved["replicates"]) == (4, 30, 3)
    assert (saved["density_evaluations"], saved["seconds"]) == (77, 1.5)
    assert saved["log_z_sd"] == pytest.approx(record.log_z_replicates.std().item())
    assert len(saved["ess_path"]) == 5 and all(0 < ess <= 30 + 1e-9 for row in saved["ess_path"] for ess in row)
    tensors = torch.load(tmp_path / "samples.pt")
    assert torch.equal(tensors["samples"], record.samples)
    assert torch.equal(tensors["log_weights"], record.log_weights)


def test_the_line_that_is_printed_holds_estimate_and_error():
    record = evidence(2)
    assert f"log Z = {record.log_z:.4f} ± {record.log_z_stderr:.4f}" in str(record)


def test_ancestors_are_counted_in_the_worst_run():
    record = evidence(3, ess_threshold=0.0)
    assert record.num_ancestors == 30
    assert evidence(3, num_steps=20, ess_threshold=1.0).num_ancestors < 30


def test_evidence_survives_the_folder(tmp_path):
    record = dataclasses.replace(
        evidence(3), parameters={"a": torch.randn(90), "b": torch.randn(90, 2, 2)}, quality={"eubo": 1.5}
    )
    record.save(tmp_path)
    loaded = smc.Evidence.load(tmp_path)
    assert loaded.summary() == record.summary()
    for name in ("samples", "log_weights", "ess_path", "resampled", "times"):
        assert torch.equal(getattr(loaded, name), getattr(record, name))
    assert torch.equal(loaded.parameters["b"], record.parameters["b"])
    assert loaded.whitening_cost == smc.Cost(5, 4)


@pytest.mark.parametrize("room_for", [0, 1])
def test_a_full_disk_is_named_and_leaves_the_estimate_of_before(tmp_path, monkeypatch, room_for):
    before = evidence(1)
    before.save(tmp_path)
    written = []

    def full(*_):
        written.append(1)
        if len(written) > room_for:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; the file from before is untouched"):
        evidence(2).save(tmp_path)
    assert smc.Evidence.load(tmp_path).summary() == before.summary()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evidence.json", "samples.pt"]


def test_a_folder_without_evidence_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no evidence\.json in"):
        smc.Evidence.load(tmp_path)


def test_the_json_is_strict_where_nothing_is_known(tmp_path):
    record = evidence(1, n=1)
    record.save(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    saved = json.loads((tmp_path / "evidence.json").read_text(), parse_constant=refuse)
    assert saved["log_z_stderr"] is None and saved["pareto_k"] is None
    assert math.isnan(smc.Evidence.load(tmp_path).log_z_stderr)


def test_the_elbo_is_below_log_z_and_near_it_for_many_steps():
    for num_steps in (4, 64):
        record = evidence(20, n=200, num_steps=num_steps, ess_threshold=0.0)
        assert record.elbo < record.log_z
    assert GAUSSIAN.log_z - record.elbo < 0.1


def test_samples_of_equal_weight_follow_the_weights_of_their_run():
    record = evidence(4, n=500)
    drawn = record.equally_weighted()["x"]
    assert drawn.shape == (4, 500, 2)
    weights = record.log_weights.reshape(4, 500).softmax(1)[..., None]
    expected = (weights * record.samples.reshape(4, 500, 2)).sum(1)
    # systematic resampling adds at most the spread of one sample over √n
    assert ((drawn.mean(1) - expected).abs() < 5 * record.samples.std(0) / 500**0.5).all()


def test_the_table_names_every_diagnostic_that_was_measured():
    text = str(dataclasses.replace(evidence(2), quality={"sliced_w2": 0.25}))
    for part in ("95 % interval", "Student's t over 2 runs", "ESS", "Pareto k", "ELBO", "sliced w2", "verdict"):
        assert part in text
    assert "77 of the density, 66 of its gradient" in text
    assert "moves accepted" not in text
    moved = dataclasses.replace(evidence(2), acceptance=torch.full((5, 2), 0.5), num_nan=3)
    assert "moves accepted          50%" in str(moved) and "3 times" in str(moved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"log_z_replicates": torch.tensor([-1.0, 1.0], dtype=torch.float64)}, "scatters by 1.4 between runs"),
        ({"log_z_stderr": 0.7}, "standard error of log Z is 0.7"),
        ({"num_ancestors": 3}, "only 3 of the first particles"),
        ({"pareto_k": 0.9}, r"heavy-tailed \(Pareto k 0.90\)"),
        ({"ess_path": torch.tensor([[30.0] * 2, [0.2, 30.0], *[[30.0] * 2] * 3])}, "fell to 0.7% .* at time 0.75"),
        ({"acceptance": torch.full((5, 2), 0.02)}, "only 2% of them were accepted"),
        ({"log_z_stderr": math.nan}, "one particle says nothing"),
    ],
)
def test_every_symptom_is_told_with_its_cure(change, reason):
    healthy = dataclasses.replace(evidence(2, ess_threshold=0.0), pareto_k=0.1, log_z_stderr=0.01)
    assert healthy.verdict == "reliable" and healthy.warning is None
    sick = dataclasses.replace(healthy, **change)
    with pytest.raises(AssertionError, match=f"rerun with .* because .*{reason}"):
        raise AssertionError(sick.verdict)
    assert sick.warning == f"unreliable: {sick.verdict}"


def test_what_is_no_matter_of_more_steps_is_told_first():
    healthy = dataclasses.replace(evidence(2, ess_threshold=0.0), pareto_k=0.9)
    assert "float64" in dataclasses.replace(healthy, rounding=0.3).verdict
    assert "broke down" in dataclasses.replace(healthy, times=torch.full((5,), torch.nan)).verdict
    assert "48 in all say too little" in dataclasses.replace(healthy, num_particles=24).verdict


def test_the_error_of_an_exact_potential_is_that_of_its_rounding():
    constant = -25000.0
    target = sbflow.target.CallableTarget(lambda x: constant - 0.5 * (x**2).sum(1), 3)
    for replicates in (1, 4):
        record = sbflow.estimate_log_z(target, replicates=replicates, num_particles=100)
        miss = abs(record.log_z - constant - 1.5 * math.log(2 * math.pi))
        assert miss < 2 * record.log_z_stderr < 0.02
        assert record.verdict == "reliable"


def test_a_record_is_saved_in_a_folder_given_as_a_string(tmp_path):
    record = evidence(2)
    record.save(str(tmp_path / "kept"))
    assert smc.Evidence.load(str(tmp_path / "kept")).log_z == record.log_z


def test_runs_that_disagree_more_than_they_admit_are_called_out():
    record = dataclasses.replace(
        evidence(6, ess_threshold=0.0),
        pareto_k=0.1,
        log_z_replicates=torch.tensor([0.0, 0.3, -0.3, 0.2, -0.2, 0.1], dtype=torch.float64),
        log_z_stderr_replicates=torch.full((6,), 0.02, dtype=torch.float64),
    )
    assert "some miss a part of the target" in record.verdict


def test_the_figure_shows_path_and_marginals_whatever_the_parameters():
    record = evidence(2)
    for parameters in ({}, {"a": torch.randn(60)}, {"a": torch.randn(60, 2, 2), "b": torch.randn(60)}):
        figure = dataclasses.replace(record, parameters=parameters).plot()
        assert isinstance(figure, Figure)
        assert len(figure.axes[0].lines) == 2 and len(figure.axes[0].lines[0].get_xdata()) == 5
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["a[0]", "a[1]", "a[2]", "a[3]", "b"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arviz_gets_one_chain_per_run():
    pytest.importorskip("arviz", minversion="0.20")
    record = dataclasses.replace(evidence(3), parameters={"tau": torch.randn(90), "mu": torch.randn(90, 2)})
    data = record.to_arviz()
    posterior = data["posterior"]
    assert dict(posterior.sizes)["chain"] == 3 and dict(posterior.sizes)["draw"] == 30
    drawn = record.equally_weighted()
    assert torch.equal(torch.from_numpy(posterior["tau"].values), drawn["tau"])
    assert posterior["mu"].shape == (3, 30, 2)
    assert posterior.attrs["log_z"] == record.log_z


def test_without_arviz_the_advice_is_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install sbflow\[arviz\]"):
        evidence(1).to_arviz()
