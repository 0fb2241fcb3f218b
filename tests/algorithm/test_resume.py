"""N + M steps equal N steps, a new process' objects, and M more steps: bit for bit."""

import pytest
import torch
from bridges import DropoutMLP, ValidatedTensors, fit, make_data, make_flow
from lightning import Callback

from sbflow.coupling import Buffer, Iterative, MinibatchOT
from sbflow.data import UnpairedTensors

STEPS = {"pretrain_steps": 4, "finetune_steps": 8}
COUPLINGS = {
    "online": lambda: {},
    "buffer": lambda: {"coupling": Buffer(size=2, reuse=2)},
    "iterative": lambda: {
        "coupling": Iterative(size=2, alternate_every=4, relaxation=0.6),
    },
    "transport": lambda: {"pretrain_coupling": MinibatchOT(method="sinkhorn"), "bidirectional": False},
}


def state(module, run) -> dict[str, torch.Tensor]:
    """Weights, average and optimiser."""
    moments = run.optimizers[0].state_dict()["state"]
    flat = {f"{i}/{name}": torch.as_tensor(value) for i, entry in moments.items() for name, value in entry.items()}
    return module.state_dict() | flat


def undisturbed(tmp_path, cuts, options, **run_options):
    """Train without a break, leaving checkpoints on the way."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            file = tmp_path / f"{trainer.global_step}.ckpt"
            if trainer.global_step in cuts and not file.exists():
                trainer.save_checkpoint(file)

    torch.manual_seed(3)
    module = make_flow(DropoutMLP(), **STEPS, **options)
    run = fit(module, make_data(), Save(), **run_options)
    return state(module, run)


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit_in_either_stage_and_across(tmp_path, name):
    cuts = (2, 4, 5, 7, 10)
    expected = undisturbed(tmp_path, cuts, COUPLINGS[name]())
    for cut in cuts:
        torch.manual_seed(100 + cut)
        module = make_flow(DropoutMLP(), **STEPS, **COUPLINGS[name]())
        found = state(module, fit(module, make_data(), ckpt_path=tmp_path / f"{cut}.ckpt"))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), cut


def test_stage_2_may_begin_in_another_way_from_the_checkpoint_between_the_stages(tmp_path):
    expected = undisturbed(tmp_path / "all", (), COUPLINGS["buffer"]())
    (tmp_path / "online").mkdir()
    undisturbed(tmp_path / "online", (4,), {})
    torch.manual_seed(9)
    module = make_flow(DropoutMLP(), **STEPS, **COUPLINGS["buffer"]())
    found = state(module, fit(module, make_data(), ckpt_path=tmp_path / "online" / "4.ckpt"))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_resumed_run_takes_the_rates_of_its_own_options(tmp_path):
    """Stage 1 alone ends with no rate for a stage 2, which another run may add, at other rates."""
    torch.manual_seed(3)
    first = make_flow(DropoutMLP(), pretrain_steps=4, finetune_steps=0)
    fit(first, make_data()).save_checkpoint(tmp_path / "4.ckpt")
    rates = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, module, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    second = make_flow(DropoutMLP(), **STEPS, learning_rate=2e-4, finetune_learning_rate=1e-4)
    fit(second, make_data(), Rates(), ckpt_path=tmp_path / "4.ckpt")
    assert rates == pytest.approx([2e-4 * second._rate(step) for step in range(4, 12)])


def test_validation_accumulation_and_other_users_of_the_global_stream_change_nothing(tmp_path):
    class Thief(Callback):
        def on_train_batch_end(self, *_):
            torch.rand(3)

    options = {"accumulate_grad_batches": 2}
    expected = undisturbed(tmp_path, (5,), {}, **options)
    torch.manual_seed(8)
    module = make_flow(DropoutMLP(), **STEPS)
    validated = {"limit_val_batches": 2, "val_check_interval": 3, "check_val_every_n_epoch": None}
    run = fit(module, make_data(), Thief(), ckpt_path=tmp_path / "5.ckpt", **options, **validated)
    found = state(module, run)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    expected = undisturbed(tmp_path, (3, 6), {})
    for cut, cls in ((3, ValidatedTensors), (6, UnpairedTensors)):
        module = make_flow(DropoutMLP(), **STEPS)
        found = state(module, fit(module, make_data(cls, num_workers=2), ckpt_path=tmp_path / f"{cut}.ckpt"))
        assert all(torch.equal(found[key], expected[key]) for key in expected), cut


def test_two_trainings_in_a_row_differ_and_the_seed_repeats_them():
    ends = []
    for seed in (1, 1, None):
        if seed is not None:
            torch.manual_seed(seed)
        network = DropoutMLP()
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        module = make_flow(network, pretrain_steps=3, finetune_steps=0)
        fit(module, make_data())
        ends.append(module.drift.network.mlp.out.weight.clone())
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_a_checkpoint_of_version_0_1_goes_on(tmp_path):
    module = make_flow(pretrain_steps=3, finetune_steps=3)
    run = fit(module, make_data(), max_steps=2)
    run.save_checkpoint(tmp_path / "old.ckpt")
    old = torch.load(tmp_path / "old.ckpt", weights_only=True)
    del old["schrodinger_bridge_flow"]
    torch.save(old, tmp_path / "old.ckpt")
    resumed = make_flow(pretrain_steps=3, finetune_steps=3)
    assert fit(resumed, make_data(), ckpt_path=tmp_path / "old.ckpt").global_step == 6
