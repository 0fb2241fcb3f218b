import logging
import warnings

import pytest
import torch
from assertions import assert_mean_close
from lightning import Callback, Trainer
from problems import online_loop

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.data import UnpairedTensors
from sbflow.network import MLP
from sbflow.process import Brownian

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def flow(event=(2,), epsilon: float = 1.0, **options) -> SchrodingerBridgeFlow:
    network = MLP(event, hidden=(16,), embed_dim=8, num_directions=2)
    return SchrodingerBridgeFlow(network, Brownian(epsilon), event, **{"num_steps": 4} | options)


def trained_flow(event=(2,), **options) -> SchrodingerBridgeFlow:
    """A flow that does something, without the time to train it."""
    module = flow(event, **options)
    module.drift.measure(torch.randn(100, *event) - 1, 2 * torch.randn(100, *event) + 3)
    torch.nn.init.normal_(module.drift.network.out.weight, std=0.1)
    module.ema.module.load_state_dict(module.drift.state_dict())
    return module


def data(batch_size: int = 16) -> UnpairedTensors:
    return UnpairedTensors(torch.randn(300, 2), 2 * torch.randn(200, 2) + 1, batch_size=batch_size)


def trainer(module: SchrodingerBridgeFlow, **options) -> Trainer:
    return Trainer(
        **{
            "max_steps": module.max_steps,
            "max_epochs": -1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        | options
    )


def fit(module: SchrodingerBridgeFlow, *callbacks: Callback, datamodule=None, ckpt_path=None, **options) -> Trainer:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        run = trainer(module, callbacks=list(callbacks), **options)
        run.fit(module, datamodule or data(), ckpt_path=ckpt_path, weights_only=False)
    return run


class Recorder(Callback):
    """Keeps, after each optimiser step, the steps in the optimiser's state, the rate and the stage of the step."""

    def __init__(self) -> None:
        self.state_steps, self.rates, self.stages = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rates.append(module.optimizers().optimizer.param_groups[0]["lr"])
        self.stages.append(module.stage)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        state = module.optimizers().optimizer.state
        self.state_steps.append({int(entry["step"]) for entry in state.values()})


def test_the_second_stage_starts_with_a_fresh_optimiser():
    recorder = Recorder()
    fit(flow(pretrain_steps=3, finetune_steps=4), recorder)
    assert recorder.stages == ["pretrain"] * 3 + ["finetune"] * 4
    assert recorder.state_steps == [{1}, {2}, {3}, {1}, {2}, {3}, {4}]


def test_with_accumulation_stages_are_counted_in_optimiser_steps():
    recorder = Recorder()
    module = flow(pretrain_steps=2, finetune_steps=2)
    run = fit(module, recorder, accumulate_grad_batches=3)
    assert run.global_step == 4
    assert recorder.stages == ["pretrain"] * 6 + ["finetune"] * 6
    assert int(module.ema.n_averaged) == 4


def test_each_stage_warms_up_to_its_own_rate_and_decays():
    recorder = Recorder()
    fit(flow(pretrain_steps=100, finetune_steps=100, learning_rate=2e-3, finetune_learning_rate=5e-4), recorder)
    for rates, peak in ((recorder.rates[:100], 2e-3), (recorder.rates[100:], 5e-4)):
        top = rates.index(max(rates))
        assert 0 < top < 10 and max(rates) == pytest.approx(peak, rel=1e-2)
        assert rates[0] < 0.6 * peak and rates[-1] == pytest.approx(0.01 * peak, rel=0.1)
        assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_the_average_follows_training_and_rides_in_the_checkpoint(tmp_path):
    module = flow(pretrain_steps=4, finetune_steps=2)
    run = fit(module)
    run.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert int(state["ema.n_averaged"]) == 6
    assert not torch.equal(state["ema.module.network.out.weight"], state["drift.network.out.weight"])
    fresh = flow()
    fresh.load_state_dict(state)
    x = torch.randn(5, 2)
    assert torch.equal(fresh.translate(x, seed=1, num_steps=3), module.translate(x, seed=1, num_steps=3))


def test_only_the_trained_weights_are_optimised():
    module = flow()
    optimised = {id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.drift.parameters()}


def test_moments_are_measured_once_and_kept_by_a_resumed_run(tmp_path):
    module = flow(pretrain_steps=2, finetune_steps=2)
    run = fit(module, max_steps=2)
    run.save_checkpoint(tmp_path / "half.ckpt")
    mean = module.drift.mean.clone()
    assert module.drift.measured and torch.equal(module.ema.module.mean, mean)
    resumed = flow(pretrain_steps=2, finetune_steps=2)
    recorder = Recorder()
    other = UnpairedTensors(torch.randn(300, 2) + 50, torch.randn(200, 2), batch_size=16)
    fit(resumed, recorder, datamodule=other, ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(resumed.drift.mean, mean)
    assert recorder.stages == ["finetune"] * 2 and recorder.state_steps == [{1}, {2}]


def silent(module: SchrodingerBridgeFlow, monkeypatch, stage: str) -> SchrodingerBridgeFlow:
    monkeypatch.setattr(type(module), "stage", stage)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    return module


def test_pretraining_pairs_real_data_with_real_data_independently(monkeypatch):
    module = silent(trained_flow(), monkeypatch, "pretrain")
    x0, x1 = torch.randn(10, 2), torch.randn(10, 2)
    pairs = module._pairs(x0, x1)
    assert pairs.direction.tolist() == [0] * 5 + [1] * 5
    assert torch.equal(pairs.start, torch.cat([x0[:5], x1[5:]])) and torch.equal(pairs.end, torch.cat([x1[:5], x0[5:]]))


def test_finetuning_regresses_on_real_data_in_both_directions(monkeypatch):
    module = silent(trained_flow(), monkeypatch, "finetune")
    x0, x1 = torch.randn(300, 2) - 1, 2 * torch.randn(300, 2) + 3
    pairs = module._pairs(x0, x1)
    assert pairs.direction.tolist() == [0] * 300 + [1] * 300
    assert torch.equal(pairs.end, torch.cat([x1, x0]))
    assert not pairs.start.requires_grad and not torch.isin(pairs.start, torch.cat([x0, x1])).any()


def test_finetuning_starts_are_what_the_other_direction_makes_of_the_end(monkeypatch):
    # a vanishing noise makes the rollouts deterministic, so that each start can be recomputed from its end
    module = silent(trained_flow(epsilon=1e-20), monkeypatch, "finetune")
    x0, x1 = torch.randn(6, 2) - 1, 2 * torch.randn(7, 2) + 3
    pairs = module._pairs(x0, x1)
    steps = module.num_steps
    x0_hat = module.translate(x1, "backward", num_steps=steps)
    x1_hat = module.translate(x0, "forward", num_steps=steps)
    assert torch.allclose(pairs.start, torch.cat([x0_hat, x1_hat]), atol=1e-5)
    assert not torch.allclose(x0_hat[:6], x0, atol=0.1) and not torch.allclose(x1_hat, x0, atol=0.1)


def test_finetuning_rolls_out_the_average_and_not_the_latest_weights(monkeypatch):
    module = silent(trained_flow(epsilon=1e-20), monkeypatch, "finetune")
    x0, x1 = torch.randn(4, 2), torch.randn(4, 2)
    before = module._pairs(x0, x1).start
    torch.nn.init.normal_(module.drift.network.out.weight, std=5.0)
    assert torch.allclose(module._pairs(x0, x1).start, before, atol=1e-5)
    torch.nn.init.normal_(module.ema.module.network.out.weight, std=5.0)
    assert not torch.allclose(module._pairs(x0, x1).start, before, atol=1e-2)


def test_translation_does_not_depend_on_the_batch_with_one_generator_per_sample():
    module = trained_flow((1, 3, 3))
    x = torch.randn(7, 1, 3, 3)

    def run(rows: slice) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(7)[rows]]
        return module.translate(x[rows], "backward", generator=generators)

    assert torch.allclose(run(slice(0, 7)), torch.cat([run(slice(0, 3)), run(slice(3, 7))]), atol=1e-5)


def test_a_seed_fixes_the_translation_and_leaves_the_global_stream_alone():
    module, x = trained_flow(), torch.randn(5, 2)
    state = torch.get_rng_state()
    one, same, other = (module.translate(x, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_noise_of_a_seed_is_not_the_global_stream_of_that_seed_from_which_the_data_may_come():
    torch.manual_seed(5)
    x = torch.randn(4000, 2)
    noise = flow(num_steps=1).translate(x, seed=5) - x
    assert_mean_close(noise.double() * x, 0.0)


def test_without_training_a_translation_is_brownian_motion_with_the_shift_of_the_means():
    module = flow(epsilon=0.7, num_steps=5)
    x0, x1 = torch.randn(50, 2), torch.randn(50, 2) + torch.tensor([4.0, -2.0])
    module.drift.measure(x0, x1)
    module.ema.module.load_state_dict(module.drift.state_dict())
    shift = x1.mean(0) - x0.mean(0)
    x = torch.zeros(20_000, 2)
    for direction, sign in (("forward", 1), ("backward", -1)):
        moved = module.translate(x, direction) - sign * shift
        assert_mean_close(moved, 0.0)
        assert_mean_close(moved.double() ** 2, 0.7)


def test_the_last_noise_can_be_left_out():
    module, x = trained_flow(), torch.zeros(2000, 2)
    noisy, clean = (module.translate(x, last_noise=noise, seed=0, num_steps=2) for noise in (True, False))
    # one of two steps of variance ε / 2 is the difference, drawn alike
    assert_mean_close((noisy - clean).double() ** 2, 0.5)


def test_the_probability_flow_is_deterministic_and_undone_by_its_reverse():
    module, x = trained_flow(), torch.randn(6, 2)
    there = module.probability_flow(x, "forward", num_steps=200)
    assert torch.equal(there, module.probability_flow(x, "forward", num_steps=200))
    assert torch.allclose(module.probability_flow(there, "backward", num_steps=200), x, atol=1e-2)
    assert not torch.allclose(there, x, atol=0.5)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.translate(torch.zeros(3, 2), "sideways"),
            "direction must be 'forward' or 'backward', got 'sideways'",
        ),
        (lambda m: m.translate(torch.zeros(3, 5)), r"x must have shape \[n, 2\], got \[3, 5\]"),
        (lambda m: m.translate(torch.zeros(2)), r"x must have shape \[n, 2\], got \[2\]"),
        (lambda m: m.translate(torch.zeros(3, 2), num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda m: m.translate(torch.zeros(3, 2), num_steps=-1), "num_steps must be at least 1, got -1"),
        (lambda m: m.probability_flow(torch.zeros(3, 2), "sideways"), "direction must be 'forward' or 'backward'"),
        (lambda m: m.probability_flow(torch.zeros(3, 2), num_steps=0), "num_steps must be at least 1, got 0"),
    ],
)
def test_impossible_translations_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(trained_flow())


def test_double_precision_samples_are_translated():
    x = torch.randn(4, 2, dtype=torch.float64)
    assert trained_flow().translate(x).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrain_steps": 0}, "need pretrain_steps >= 1 and finetune_steps >= 0, got 0"),
        ({"finetune_steps": -1}, "need pretrain_steps >= 1 and finetune_steps >= 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"cutoff": 0.0}, r"cutoff must lie in \(0, 0.5\), got 0.0"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"finetune_learning_rate": -1.0}, "finetune_learning_rate"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        flow(**options)


@pytest.mark.slow
def test_a_short_run_reaches_the_fixed_point_of_the_exact_loop_in_both_directions():
    epsilon, num_steps = 1.0, 10
    x0, x1 = torch.randn(4000, 1) - 0.5, 1.5 * torch.randn(4000, 1) + 0.5
    network = MLP((1,), hidden=(128, 128), num_directions=2)
    module = SchrodingerBridgeFlow(
        network, Brownian(epsilon), (1,), pretrain_steps=800, finetune_steps=300, num_steps=num_steps, ema_decay=0.99
    )
    fit(module, datamodule=UnpairedTensors(x0, x1, batch_size=256), gradient_clip_val=1.0)
    variance0, variance1 = x0.var().item(), x1.var().item()
    first, last = (online_loop(variance0, variance1, epsilon, num_steps, True, iterations=n) for n in (1, 60))
    for start, direction, cross, variance, stage1 in (
        (x0, "forward", last.cross_forward, last.variance1, first.cross_forward),
        (x1, "backward", last.cross_backward, last.variance0, first.cross_backward),
    ):
        made = module.translate(start, direction, num_steps=num_steps)
        found = ((start - start.mean()) * (made - made.mean())).mean().item()
        # 10 %: over seeds the learned moments lay within 5 % of the exact loop's
        assert found == pytest.approx(cross, rel=0.1) and made.var().item() == pytest.approx(variance, rel=0.1)
        assert found > 0.5 * (stage1 + cross)
