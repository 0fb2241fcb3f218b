"""Whatever is written on the command line: it is understood, or answered by one line; never by a traceback."""

import pytest
import torch
from commands import sbflow
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sbflow.cli import COMMANDS, config_dir
from sbflow.command.build import build

GROUPS = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in config_dir().iterdir()}
OPTIONS = {
    "algorithm": "num_steps pretrain_steps finetune_steps learning_rate ema_decay cutoff coupling parametrisation "
    "bidirectional last_noise guard network process event_shape num_particles ess_threshold refinements coefficient",
    "process": "epsilon schedule schedule.beta_max",
    "network": "width hidden multipliers num_blocks embed_dim dropout channels_last attention_levels event_shape",
    "data": "size num_train num_test batch_size seed dim num_samples std0 folder0 x0 x1 fit",
    "target": "dim log_prob std constraints constraints.mu seed",
    "whitening": "std steps rank",
    "metric": "num_samples num_steps",
    "figure": "num_images num_steps keys",
    "trainer": "precision accelerator devices max_steps accumulate_grad_batches gradient_clip_val callbacks",
    "callback": "every_steps every_minutes monitor mode patience validate_every",
    "logger": "project name _target_",
}
TOP = "seed checkpoint resume run_dir input output direction num_steps num_samples sampler batch_size precision device "
TOP += "grid keep_size overwrite trust num_particles replicates quality graph last_noise event_shape"

keys = st.one_of(
    st.sampled_from([f"{part}.{option}" for part, options in OPTIONS.items() for option in options.split()]),
    st.sampled_from([*OPTIONS, *TOP.split(), "experiment", "process/schedule"]),
    st.from_regex(r"[a-z_]{1,8}(\.[a-z_0-9]{1,8}){0,2}", fullmatch=True),
)
# what an argument of a program can be
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)
# sizes stay small: what is valid is built
scalars = st.one_of(
    st.integers(-3, 40).map(str),
    st.floats(width=16).map(str),
    st.sampled_from(["null", "true", "nan", "inf", "-inf", "", "???", "auto", "[]", "{}", "1e3", "0x10", "'a b'", '"']),
    st.sampled_from(["${seed}", "${nowhere}", "${oc.env:HOME}", "${oc.env:NONE_SUCH}", "${", "${oc.decode:1}", "}"]),
    st.sampled_from(["math.sin", "nowhere.f", "nowhere", ".", "/", "a.png", "bridge", "empty", "text"]),
    st.sampled_from([name for names in GROUPS.values() for name in names]),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["_target_", "a", "0", "_args_"]), inner, max_size=2).map(
            lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=4,
)
prefixes = st.sampled_from(["", "", "", "", "+", "++", "~"])
overrides = st.one_of(
    st.builds("{}{}={}".format, prefixes, keys, values),
    st.builds("{}{}".format, prefixes, keys),
    scalars,
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a run of an untrained bridge, an empty folder and a text."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "empty").mkdir()
    (folder / "text").write_text("hello")
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": {"_target_": "sbflow.network.mlp.MLP", "event_shape": [2], "num_directions": 2},
                "process": {"_target_": "sbflow.process.brownian.Brownian"},
                "event_shape": [2],
            }
        }
    )
    (folder / "bridge" / "checkpoints").mkdir(parents=True)
    OmegaConf.save(config, folder / "bridge" / "config.yaml")
    state = build(config, "algorithm").state_dict()
    torch.save({"state_dict": state}, folder / "bridge" / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture
def harmless(workplace, monkeypatch):
    """All that comes before the work is done; the work itself, and what Hydra would exit for, is not."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("SBFLOW_DATA", str(workplace / "empty"))
    train = __import__("sbflow.command.train", fromlist=["_fit"])
    sample = __import__("sbflow.command.sample", fromlist=["_sampler"])
    monkeypatch.setattr(train, "_fit", lambda *_: {})
    monkeypatch.setattr(sample, "sample", lambda config: stop_before_sampling(sample, config))
    return workplace


def stop_before_sampling(sample, config):
    """What the command checks and builds."""
    sample._check(config)
    sample._sampler(config)
    return 0.0


BASES = {
    "train": [(), ("experiment=sbf_gaussian",), ("experiment=pdds_funnel",)],
    "sample": [("target=funnel", "whitening=standard"), ("target=gaussian",), ("checkpoint=bridge",)],
    "translate": [("checkpoint=bridge", "input=empty", "output=o")],
    "evaluate": [("checkpoint=bridge",)],
    "export": [("checkpoint=bridge", "output=text")],
}


def test_every_command_but_the_check_is_fuzzed():
    assert set(BASES) == set(COMMANDS) - {"check"}


@pytest.mark.parametrize("command", BASES)
@given(data=st.data())
@pytest.mark.timeout(0)
def test_a_command_line_is_understood_or_answered_by_one_line(command, harmless, capsys, data):
    base = data.draw(st.sampled_from(BASES[command]))
    drawn = data.draw(st.lists(overrides, min_size=1, max_size=3))
    # neither help nor a sweep, and no folder outside of this one is written to
    arguments = [*base, *(one for one in drawn if not one.startswith("-") and "dir" not in one)]
    result = (
        sbflow(command, *arguments, f"run_dir={harmless / 'run'}", capsys=capsys)
        if command
        in (
            "train",
            "sample",
        )
        else sbflow(command, *arguments, capsys=capsys)
    )
    (harmless / "run" / "config.yaml").unlink(missing_ok=True)
    assert result.code in (0, 2), result.err
    if result.code == 2:
        lines = [line for line in result.err.strip().splitlines() if line.startswith("sbflow: ")]
        assert len(lines) == 1 and "Traceback" not in result.err, result.err


@given(words=st.lists(texts, max_size=2))
@example(words=[])
@pytest.mark.timeout(0)
def test_any_words_are_answered_by_one_line(words, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    result = sbflow("translate", *(word for word in words if not word.startswith("-")), capsys=capsys)
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1, result.err
