"""Guards: what stops a run, what is warned of, and what passes."""

import warnings

import pytest
import torch
from bridges import fit, make_data, make_flow
from lightning import Callback

from sbflow.algorithm.guard import FiniteLoss, Inflation, stays_at_source
from sbflow.data import UnpairedTensors


class Poison(Callback):
    """Spoils the weights before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, module, *_):
        if trainer.global_step == self.step:
            torch.nn.init.constant_(module.drift.network.out.bias, float("nan"))


def two_modes(n: int) -> torch.Tensor:
    return 3 * torch.sign(torch.randn(n, 2)) + 0.1 * torch.randn(n, 2)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step():
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 3"):
        fit(make_flow(pretrain_steps=6, finetune_steps=2), make_data(), Poison(3))


def test_no_checkpoint_is_written_over_a_good_one_after_a_bad_loss(tmp_path):
    module = make_flow(pretrain_steps=3, finetune_steps=0)
    run = fit(module, make_data())
    run.save_checkpoint(tmp_path / "last.ckpt")
    good = (tmp_path / "last.ckpt").read_bytes()
    module._finite.first = torch.tensor(2)
    with pytest.raises(FloatingPointError, match="at step 2"):
        run.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == good


def test_the_first_of_several_bad_steps_is_named():
    guard = FiniteLoss(every=4)
    guard.first = torch.tensor(-1)
    for step, loss in enumerate([1.0, 2.0]):
        guard.see(torch.tensor(loss), step)
    with pytest.raises(FloatingPointError, match="step 2"):
        guard.see(torch.tensor(float("inf")), 2)
    with pytest.raises(FloatingPointError, match="step 2"):
        guard.see(torch.tensor(1.0), 3)


def test_a_first_stage_that_is_too_short_is_refused():
    data = UnpairedTensors(torch.randn(400, 2), two_modes(400), batch_size=64)
    with pytest.raises(ValueError, match=r"stage 1 has not left the source: .* raise pretrain_steps .* guard=warn"):
        fit(make_flow(pretrain_steps=1, finetune_steps=200, guard="refuse"), data)


@pytest.mark.parametrize(("guard", "finetune_steps"), [("warn", 200), ("refuse", 2)])
def test_a_trial_run_and_a_bold_user_are_only_warned(guard, finetune_steps):
    data = UnpairedTensors(torch.randn(400, 2), two_modes(400), batch_size=64)
    with pytest.warns(UserWarning, match="stage 1 has not left the source"):
        fit(make_flow(pretrain_steps=1, finetune_steps=finetune_steps, guard=guard), data, max_steps=2)


@pytest.mark.parametrize("make", [lambda n: torch.randn(n, 2), two_modes])
def test_equal_ends_have_nothing_to_leave(make):
    data = UnpairedTensors(make(400), make(400), batch_size=64)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="stage 1")
        run = fit(make_flow(pretrain_steps=1, finetune_steps=200, guard="refuse", epsilon=0.01), data, max_steps=2)
    assert run.global_step == 2


def test_translations_that_arrived_pass_and_those_that_did_not_are_named():
    source, target = torch.randn(300, 2), two_modes(300)
    blurred = source + torch.randn(300, 2)
    assert stays_at_source(source, two_modes(300), blurred, target, "forward") is None
    for made in (source + 0.1 * torch.randn(300, 2), source + torch.randn(300, 2)):
        reason = stays_at_source(source, made, blurred, target, "backward")
        assert reason is not None and "backward translations" in reason


@pytest.mark.parametrize(("ratio", "warned"), [(1.3, True), (0.7, True), (1.05, False)])
def test_a_lasting_error_of_the_variance_is_warned_of_once(ratio, warned):
    guard = Inflation()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for noise in torch.linspace(-0.05, 0.05, 40).tolist():
            guard.see(ratio + noise, "forward")
    assert [f"the forward translations have {ratio:.1f}"[:-1] in str(one.message) for one in caught] == [True] * warned


def test_what_stage_1_has_left_may_mend_before_it_is_warned_of():
    guard = Inflation()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(40):
            guard.see(min(0.8 + 0.01 * step, 1.0), "forward")
    assert caught == []


@pytest.mark.parametrize(("ratio", "remedy"), [(1.3, "lower finetune_learning_rate"), (0.7, "finetune_ema_decay")])
def test_the_remedy_is_for_the_side_of_the_error(ratio, remedy):
    guard = Inflation()
    for _ in range(19):
        guard.see(ratio, "backward")
    with pytest.warns(UserWarning, match=remedy):
        guard.see(ratio, "backward")


def test_a_single_odd_batch_is_no_inflation():
    guard = Inflation()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(40):
            guard.see(1.8 if step == 20 else 1.0, "backward")
    assert caught == []


def test_between_ends_that_are_much_alike_an_imperfect_translation_passes_and_an_untrained_one_does_not():
    source, target = torch.randn(500, 50), 0.2 + torch.randn(500, 50)
    untrained = 0.2 + torch.randn(500, 50) * 2**0.5
    made = 0.2 + torch.randn(500, 50) * 1.35**0.5
    assert stays_at_source(source, made, untrained, target, "forward") is None
    again = 0.2 + torch.randn(500, 50) * 2**0.5
    assert "has not left" in stays_at_source(source, again, untrained, target, "forward")
