"""Each stage is judged by its own validations, and only the last one ends early."""

from types import SimpleNamespace

import pytest

from sbflow.callback import Checkpoints

# a stand-in is not of the annotated type
pytestmark = pytest.mark.usefixtures("unchecked_types")


class Training(SimpleNamespace):
    """Stands for a trainer: four steps of stage 1 and four of stage 2, with a validation after each."""

    def __init__(self, folder, stages=("one",) * 4 + ("two",) * 4):
        super().__init__(
            global_step=0,
            max_steps=8,
            world_size=1,
            is_global_zero=True,
            sanity_checking=False,
            should_stop=False,
            default_root_dir=folder,
            callback_metrics={},
            best_step=None,
        )
        self.module = SimpleNamespace(last_stage=stages[-1]) if stages else SimpleNamespace()
        self.stages = stages

    def save_checkpoint(self, file):
        if file.name == "best.ckpt":
            self.best_step = self.global_step

    def run(self, callback, values, *, start=0):
        """Go through the steps as the trainer does; the stage is that of the next step, as modules tell it."""
        self.global_step = start
        self._tell_stage()
        callback.on_train_start(self, self.module)
        for value in values:
            if self.should_stop or self.global_step == self.max_steps:
                break
            callback.on_train_batch_start(self, self.module)
            self.global_step += 1
            self._tell_stage()
            self.callback_metrics["val/loss"] = value
            callback.on_validation_end(self, self.module)
        callback.on_train_end(self, self.module)
        return self

    def _tell_stage(self):
        if self.stages:
            self.module.stage = self.stages[min(self.global_step, 7)]


def watching(**options):
    return Checkpoints(monitor="val/loss", **{"patience": 2, "validate_every": 1, "every_minutes": None} | options)


def test_a_stage_without_progress_goes_on_to_the_next_one(tmp_path, capsys):
    training = Training(tmp_path).run(watching(), [1, 2, 2, 2, 5, 4, 3, 2])
    assert training.global_step == 8
    assert capsys.readouterr().out == ""


def test_the_last_stage_ends_early_and_says_so_in_one_line(tmp_path, capsys):
    training = Training(tmp_path).run(watching(), [1, 2, 2, 2, 5, 6, 6, 6])
    assert training.global_step == 7
    line = "stopped early at step 7 of 8: no better val/loss in 2 validations (callback.patience=2)\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("stages", [None, ("one",) * 8])
def test_where_there_is_one_stage_it_ends_early(tmp_path, stages):
    assert Training(tmp_path, stages).run(watching(), [1, 2, 2, 2]).global_step == 3


def test_the_best_model_is_that_of_the_last_stage_reached(tmp_path):
    assert Training(tmp_path).run(watching(), [4, 3, 2, 1, 9, 8, 9, 9]).best_step == 6
    # the validation after the last step of stage 1 is stage 1's
    assert Training(tmp_path).run(watching(), [4, 3, 2, 1]).best_step == 4


def test_a_run_that_ends_at_its_last_step_did_not_end_early(tmp_path, capsys):
    assert Training(tmp_path).run(watching(), [1, 1, 1, 1, 3, 2, 2, 2]).global_step == 8
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_resumed_run_counts_on(tmp_path, step):
    values = [1, 2, 2, 2, 5, 6, 6, 6]
    first, second = watching(), watching()
    Training(tmp_path).run(first, values[:step])
    second.load_state_dict(first.state_dict())
    assert Training(tmp_path).run(second, values[step:], start=step).global_step == 7
    assert second.state_dict() == {"best": 5, "validations_since_best": 2, "stage": "two"}


def test_a_resumed_run_that_had_ended_early_makes_no_step(tmp_path, capsys):
    first, second, patient = watching(), watching(), watching(patience=3)
    Training(tmp_path).run(first, [1, 2, 2, 2, 5, 6, 6])
    for callback in (second, patient):
        callback.load_state_dict(first.state_dict())
    capsys.readouterr()
    assert Training(tmp_path).run(second, [0], start=7).global_step == 7
    assert capsys.readouterr().out.startswith("stopped early at step 7 of 8")
    assert Training(tmp_path).run(patient, [0], start=7).global_step == 8


def test_a_checkpoint_that_names_no_stage_goes_on_with_its_count(tmp_path):
    callback = watching()
    callback.load_state_dict({"best": 1.0, "validations_since_best": 1})
    assert Training(tmp_path).run(callback, [2, 2], start=5).global_step == 6
