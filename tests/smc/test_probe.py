"""The look further out than a run has gone: unbiased, sure of itself where it says so, and never in the way."""

import dataclasses
import json
import math

import pytest
import torch
from assertions import assert_mean_close

import sbflow
from sbflow import smc
from sbflow.algorithm import AnnealedSMC, ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc.islands import combine
from sbflow.target import Banana, CallableTarget, CountingTarget, Funnel, GaussianTarget, Target
from sbflow.tensor import seeded_generator
from sbflow.whitening import FullRank, Laplace, Standard

# asymmetric and correlated, in the coordinates of a reference law that does not fit it
GAUSSIAN = GaussianTarget([1.5, -0.7, 0.3], [[2.0, 0.9, 0.0], [0.9, 0.8, 0.1], [0.0, 0.1, 0.4]]).double()


def student_t(x: torch.Tensor) -> torch.Tensor:
    """Two degrees of freedom in ten dimensions."""
    return -6 * torch.log1p(x.square().sum(1) / 2)


STUDENT_LOG_Z = 5 * math.log(2 * math.pi) - math.lgamma(6)


def look(target, seed: int = 0, *, num_probes: int = 400, dtype=torch.float64) -> smc.Probe:
    """From particles that have the reference law, which is not the target's."""
    x = torch.randn(50, target.dim, generator=seeded_generator(7), dtype=dtype)
    flat = torch.full((50,), -math.log(50), dtype=torch.float64)
    run = {"log_z": math.inf, "stderr": 0.0, "generator": seeded_generator(seed)}
    return smc.probe_beyond(target.log_prob, x, flat, num_probes=num_probes, **run)


def sampler(target: Target, whitening, **options) -> ParticleDenoisingDiffusionSampler:
    return ParticleDenoisingDiffusionSampler(target, whitening, OrnsteinUhlenbeck(), **{"num_steps": 16} | options)


def test_its_estimate_of_z_is_unbiased_and_its_error_that_of_the_draws():
    found = [look(GAUSSIAN, seed) for seed in range(300)]
    z = torch.tensor([one.log_z for one in found], dtype=torch.float64).exp()
    assert_mean_close(z, 1.0)
    stated = torch.tensor([one.stderr for one in found], dtype=torch.float64).square().mean().sqrt()
    # a standard deviation of 300 draws is known to a twenty-fourth of itself; five of these
    assert float(z.std() / stated) == pytest.approx(1, abs=5 / math.sqrt(600))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_finds_the_tails_of_a_student_t(dtype):
    found = look(CallableTarget(student_t, 10), num_probes=4000, dtype=dtype)
    assert abs(found.log_z - STUDENT_LOG_Z) < 4 * found.stderr < 0.2
    assert found.ess > 100


def test_a_suspicion_is_decided_by_four_times_as_many_points():
    target, x, flat = CountingTarget(GAUSSIAN), torch.randn(50, 3).double(), torch.full((50,), -math.log(50)).double()

    def points(log_z: float) -> int:
        target.reset()
        run = {"log_z": log_z, "stderr": 0.01, "generator": seeded_generator(1)}
        found = smc.probe_beyond(target.log_prob, x, flat, num_probes=401, **run)
        assert abs(found.log_z) < 4 * found.stderr
        return target.density_evaluations

    assert points(0.5) == 3 * 402 and points(-0.5) == 7 * 402
    assert points(math.nan) == 3 * 402


def test_what_is_no_number_counts_as_nothing():
    def patchy(x: torch.Tensor) -> torch.Tensor:
        good = -0.5 * (x**2).sum(1)
        return torch.where(x[:, 0] > 1, math.nan, torch.where(x[:, 0] < -1, math.inf, good))

    share = math.erf(1 / math.sqrt(2))
    found = look(CallableTarget(patchy, 2), num_probes=4000)
    assert abs(found.log_z - math.log(2 * math.pi * share)) < 4 * found.stderr < 0.2
    assert math.isnan(look(CallableTarget(lambda x: torch.full((len(x),), -math.inf), 2)).log_z)


def test_particles_without_weight_may_lie_anywhere():
    x = torch.cat([torch.full((1, 3), math.inf), torch.zeros(1, 3), torch.full((1, 3), math.nan)]).double()
    log_weights = torch.tensor([-math.inf, 0.0, -math.inf], dtype=torch.float64)
    run = {"log_z": 0.0, "stderr": 0.01, "generator": seeded_generator(0)}
    found = smc.probe_beyond(GAUSSIAN.log_prob, x, log_weights, num_probes=2000, **run)
    assert abs(found.log_z) < 4 * found.stderr < 0.4


@pytest.mark.parametrize(
    ("target", "whitening"),
    [
        (CallableTarget(student_t, 10), Laplace()),
        (Banana(), Laplace()),
        (Funnel(), Laplace()),
        (CallableTarget(lambda x: -((1 - x[:, 0]) ** 2) - 100 * (x[:, 1] - x[:, 0] ** 2) ** 2, 2), Laplace()),
    ],
    ids=["student_t", "banana", "funnel", "rosenbrock"],
)
def test_runs_that_miss_tails_or_arms_are_not_called_reliable(target, whitening):
    module = sampler(target, whitening)
    records = [module.estimate(seed=seed) for seed in range(3)]
    assert "reliable" not in [record.verdict for record in records]
    found = next(record for record in records if record.missed)
    assert f"points further out find log Z {found.missed:.3g} larger" in found.verdict


@pytest.mark.parametrize(
    "target",
    [
        GaussianTarget([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]]),
        CallableTarget(lambda x: (3 * x - x.exp()).sum(1), 5),
        CallableTarget(lambda x: -(x**4).sum(1), 3),
    ],
    ids=["gaussian", "log_gamma", "quartic"],
)
def test_sound_runs_are_left_alone(target):
    module = sampler(target, FullRank())
    assert [module.estimate(seed=seed, num_particles=1000).missed for seed in range(20)] == [0.0] * 20


def test_the_run_itself_does_not_change_and_the_cost_is_told_apart():
    module = sampler(GaussianTarget([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]]), Standard(), num_particles=301)
    record = module.estimate(seed=3)
    probed = record.probe_cost.density
    assert record.cost.density == 301 * 17 and probed in (3 * 302, 7 * 302) and record.probe_cost.gradient == 0
    assert record.summary()["probe_density_evaluations"] == probed and record.summary()["missed"] == 0.0
    assert "log Z further out" in str(record) and f"{probed:,} of the density" in str(record)
    again = module.estimate(seed=3)
    assert again.probe_log_z == record.probe_log_z and again.log_z == record.log_z
    assert AnnealedSMC(module.target, Standard(), num_particles=100, num_steps=4).estimate().probe_cost.density in (
        300,
        700,
    )


@pytest.mark.parametrize("algorithm", [AnnealedSMC, ParticleDenoisingDiffusionSampler])
def test_it_can_be_left_out_and_the_run_is_the_same(algorithm):
    options = {"target": GaussianTarget([0.4], [[0.8]]), "whitening": Standard(), "num_particles": 100, "num_steps": 4}
    if algorithm is ParticleDenoisingDiffusionSampler:
        options["process"] = OrnsteinUhlenbeck()
    record, probed = (algorithm(**options, num_probes=num).estimate() for num in (0, 7))
    assert record.probe_cost == smc.Cost(0, 0) and record.missed == 0 and "further out" not in str(record)
    assert probed.probe_cost.density in (3 * 8, 7 * 8)
    assert record.log_z == probed.log_z and record.verdict == probed.verdict
    with pytest.raises(ValueError, match="num_probes must be at least 0, got -1"):
        algorithm(**options, num_probes=-1)


def test_a_density_that_raises_far_out_is_taken_as_nothing_there():
    def shy(x: torch.Tensor) -> torch.Tensor:
        if (x.norm(dim=1) > 30).any():
            raise RuntimeError("too far")
        return -0.5 * (x**2).sum(1)

    record = sampler(CallableTarget(shy, 2), Standard(), num_particles=400).estimate()
    assert record.log_z == pytest.approx(math.log(2 * math.pi), abs=1e-5)
    assert abs(record.probe_log_z - record.log_z) < 4 * record.probe_stderr < 0.4


def test_a_funnel_whose_distributions_check_their_arguments_is_seen_through():
    def funnel(x: torch.Tensor) -> torch.Tensor:
        scale = (0.5 * x[:, :1]).exp()
        arm = torch.distributions.Normal(0.0, scale, validate_args=True).log_prob(x[:, 1:]).sum(1)
        return arm + torch.distributions.Normal(0.0, 3.0).log_prob(x[:, 0])

    record = sampler(CallableTarget(funnel, 10), Laplace()).estimate()
    assert record.log_z < -20 and record.missed > 5


def test_a_density_that_always_raises_costs_few_calls_and_no_run():
    calls = []

    def broken(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        raise ValueError("no")

    x, flat = torch.zeros(10, 2), torch.full((10,), -math.log(10), dtype=torch.float64)
    run = {"log_z": 0.0, "stderr": 0.01, "generator": seeded_generator(0)}
    found = smc.probe_beyond(broken, x, flat, num_probes=1000, **run)
    assert all(math.isnan(value) for value in found) and len(calls) <= 300
    blind = dataclasses.replace(sampler(GAUSSIAN, Standard()).estimate(), probe_log_z=math.nan)
    assert blind.missed == 0.0 and "log Z further out" not in str(blind)


def test_the_density_is_called_with_no_more_points_than_asked_for():
    sizes = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return -0.5 * (x**2).sum(1)

    module = sampler(CallableTarget(watched, 2), Standard(), num_particles=200, chunk_size=70)
    module.whiten()
    sizes.clear()
    record = module.estimate()
    assert max(sizes) <= 70 and record.probe_cost.density in (600, 1400)


def test_what_exceeds_the_estimate_beyond_chance_is_missed():
    record = dataclasses.replace(sampler(GAUSSIAN, Standard()).estimate(), log_z=0.0, log_z_stderr=0.05)

    def missed(log_z: float, stderr: float, ess: float) -> float:
        return dataclasses.replace(record, probe_log_z=log_z, probe_stderr=stderr, probe_ess=ess).missed

    assert missed(0.5, 0.1, 200.0) == 0.5
    assert missed(0.3, 0.1, 200.0) == 0.0
    assert missed(-2.0, 0.1, 200.0) == 0.0
    # one heavy weight makes the estimate large, and its error as large
    assert missed(4.0, 0.9, 20.0) == 0.0
    # of few points not even a standard error can be believed, but Markov's inequality needs none
    assert missed(4.0, 0.1, 1.2) == 0.0
    assert missed(5.0, 0.9, 1.2) == 5.0
    assert missed(2000.0, 0.9, 1.2) == 2000.0
    assert missed(math.nan, math.nan, math.nan) == 0.0
    # of one particle nothing is known
    assert dataclasses.replace(record, log_z_stderr=math.nan, probe_log_z=9.0, probe_ess=50.0).missed == 0.0


def test_it_is_kept_in_files_and_pooled_over_islands(tmp_path):
    module = sampler(GAUSSIAN, Standard(), num_particles=100)
    islands = [module.estimate(island=k) for k in range(3)]
    whole = combine(islands)
    z = torch.tensor([one.probe_log_z for one in islands], dtype=torch.float64).exp()
    errors = z * torch.tensor([one.probe_stderr for one in islands], dtype=torch.float64)
    assert whole.probe_log_z == pytest.approx(float(z.mean().log()), abs=1e-12)
    assert whole.probe_stderr == pytest.approx(float(errors.norm() / z.sum()))
    weights = z / torch.tensor([one.probe_ess for one in islands], dtype=torch.float64).sqrt()
    assert whole.probe_ess == pytest.approx(float((z.sum() / weights.norm()) ** 2))
    assert whole.probe_cost.density == sum(one.probe_cost.density for one in islands)
    whole.save(tmp_path)
    loaded = smc.Evidence.load(tmp_path)
    assert loaded.summary() == whole.summary() and loaded.probe_cost == whole.probe_cost
    # a record of a version that knew no probes
    numbers = json.loads((tmp_path / "evidence.json").read_text())
    (tmp_path / "evidence.json").write_text(json.dumps({k: v for k, v in numbers.items() if "probe" not in k}))
    old = smc.Evidence.load(tmp_path)
    assert math.isnan(old.probe_log_z) and old.missed == 0.0 and old.log_z == whole.log_z


def test_an_island_that_sees_nothing_does_not_hide_what_another_has_found():
    module = sampler(GAUSSIAN, Standard(), num_particles=100)
    one, other = module.estimate(), module.estimate(island=1)
    blind = dataclasses.replace(one, probe_log_z=math.nan, probe_stderr=math.nan, probe_ess=math.nan)
    assert combine([blind, other]).probe_log_z == other.probe_log_z
    assert math.isnan(combine([blind, blind]).probe_log_z)
    alarmed = dataclasses.replace(other, probe_log_z=8.0, probe_stderr=0.9, probe_ess=1.2)
    assert combine([one, alarmed]).missed > 6


def test_the_shortest_way_to_an_estimate_looks_too():
    record = sbflow.estimate_log_z(student_t, 10, whitening="laplace", num_particles=1000)
    assert record.probe_cost.density == 7000
    assert abs(record.probe_log_z - STUDENT_LOG_Z) < 4 * record.probe_stderr
