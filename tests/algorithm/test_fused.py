import pytest
import torch
from lightning import LightningModule, Trainer

from sbflow.algorithm.fused import may_fuse


class Regression(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1, fused=may_fuse(self) or None)


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("64-true", True), ("bf16-mixed", None)])
def test_gradients_are_clipped_in_every_precision(precision, fused):
    module = Regression()
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=2,
        gradient_clip_val=1e-3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=4))
    assert trainer.optimizers[0].param_groups[0]["fused"] is fused
    assert float(module.layer.weight.grad.norm()) <= 1e-3 * (1 + 1e-6)


def test_a_module_without_a_trainer_may_fuse():
    assert may_fuse(Regression())
