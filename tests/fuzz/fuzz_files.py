"""Whatever is in a file: it is read, or refused by an error that a command turns into one line."""

import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from sbflow.callback.metrics_file import read_rows
from sbflow.command.build import build
from sbflow.command.checkpoint import read_checkpoint
from sbflow.command.run import load_run
from sbflow.data.arrays import ArrayFiles
from sbflow.data.images import image_size, read_pixels
from sbflow.data.letters import read_idx
from sbflow.target import Brownian, Ionosphere, Sonar
from sbflow.target.dataset import read_csv

pytestmark = pytest.mark.timeout(0)
TABLES = {
    "sonar": Sonar,
    "ionosphere": Ionosphere,
    "brownian_missing_middle": Brownian,
    "finnish_pines": lambda: read_csv("finnish_pines"),
}


@st.composite
def damaged(draw, whole: bytes):
    """A sound file with some bytes changed, cut, put in or left out; or anything else."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if kind == "change":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[at : at + draw(st.integers(1, 16))]
    return bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def one_line(error):
    """An error that is shown as it is must fit on a line."""
    assert str(error).strip() and "\n" not in str(error).strip(), str(error)


@given(content=st.one_of(damaged(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])), st.binary(max_size=40)))
def test_an_idx_file(folder, content):
    (folder / "x").write_bytes(content)
    try:
        assert read_idx(folder / "x").dtype == torch.uint8
    except ValueError as error:
        one_line(error)


cells = st.one_of(st.sampled_from(["0", "1", "", "nan", "inf", "x", "-1", '"', "1e999", "#", " "]), st.text(max_size=3))
rows = st.lists(st.lists(cells, max_size=4).map(",".join), max_size=5).map("\n".join)


@pytest.mark.parametrize("name", TABLES)
@given(content=st.one_of(rows.map(str.encode), damaged(b"label,a,b\n1,0.5,2\n0,1.5,3\n1,-2,0.1\n")))
def test_a_table_of_a_target(folder, name, content):
    (folder / "bayes").mkdir(exist_ok=True)
    (folder / "bayes" / f"{name}.csv").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBFLOW_DATA", str(folder))
        try:
            TABLES[name]()
        except ValueError as error:
            one_line(error)


@given(content=st.one_of(rows.map(str.encode), damaged(b"step,train/loss\n0,1.5\n1,1.25\n2,\n")))
def test_a_table_of_metrics(folder, content):
    (folder / "metrics.csv").write_bytes(content)
    for row in read_rows(folder / "metrics.csv"):
        assert int(row["step"]) >= 0


def encoded(format: str, mode: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format=format, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
IMAGES = {
    "png": encoded("PNG", "RGBA"),
    "palette.png": encoded("PNG", "P"),
    "jpg": encoded("JPEG", "RGB", exif=EXIF),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP", "RGB"),
    "ppm": encoded("PPM", "L"),
    "tga": encoded("TGA", "RGB"),
    "tif": encoded("TIFF", "RGB", compression="tiff_lzw"),
    "webp": encoded("WEBP", "RGB"),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_an_image(folder, name, data):
    file = folder / f"a.{name}"
    file.write_bytes(data.draw(damaged(IMAGES[name])))
    for read in (image_size, as_colour, as_grey):
        # the commands name such a file and go on
        with suppress(OSError, ValueError):
            read(file)


def as_colour(file):
    assert read_pixels(file, (3, 8, 8)).shape == (3, 8, 8)


def as_grey(file):
    assert read_pixels(file, (1, 8, 8), fit="crop").shape == (1, 8, 8)


def saved(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


X = np.arange(12, dtype=np.float32).reshape(6, 2)
ARRAYS = {
    "npy": saved(lambda file: np.save(file, X)),
    "npz": saved(lambda file: np.savez(file, a=X)),
    "pt": saved(lambda file: torch.save(torch.tensor(X), file)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_an_array(folder, name, data):
    # a new file for each: it stays mapped into memory
    with tempfile.TemporaryDirectory(dir=folder) as own:
        file = Path(own) / f"x.{name}"
        file.write_bytes(data.draw(damaged(ARRAYS[name])))
        try:
            split = ArrayFiles(file, file).split("train")
        except ValueError as error:
            one_line(error)
            return
        assert split.x0.isfinite().all()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """Run folder and export of an untrained bridge, with the bytes of their files."""
    from commands import sbflow

    run = tmp_path_factory.mktemp("run") / "run"
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": {
                    "_target_": "sbflow.network.mlp.MLP",
                    "event_shape": [2],
                    "hidden": [4],
                    "embed_dim": 4,
                    "num_directions": 2,
                },
                "process": {"_target_": "sbflow.process.brownian.Brownian", "epsilon": 1.0},
                "event_shape": [2],
            }
        }
    )
    (run / "checkpoints").mkdir(parents=True)
    OmegaConf.save(config, run / "config.yaml")
    state = build(config, "algorithm").state_dict()
    torch.save({"state_dict": state, "global_step": 3, "sbflow_format": 1}, run / "checkpoints" / "last.ckpt")
    exported = run.parent / "exported"
    assert sbflow("export", f"checkpoint={run}", f"output={exported}").code == 0
    return {path: {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} for path in (run, exported)}


READ = ("config.yaml", "last.ckpt", "model.safetensors", "export.json")


@pytest.mark.parametrize("kind", ["run", "exported"])
@given(data=st.data())
def test_a_trained_model(bridge, kind, data):
    (path,) = (path for path in bridge if path.name == kind)
    read = [file for file in bridge[path] if file.name in READ]
    file = data.draw(st.sampled_from(sorted(read)))
    file.write_bytes(data.draw(damaged(bridge[path][file])))
    try:
        load_run(path)
    except (ValueError, FileNotFoundError) as error:
        one_line(error)
    finally:
        file.write_bytes(bridge[path][file])


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(torch.ones(2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["state_dict", "sbflow_format", "global_step", "a"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(content=plain)
def test_plain_data_that_are_no_checkpoint(bridge, content):
    (path,) = (path for path in bridge if path.name == "run")
    file = path / "checkpoints" / "last.ckpt"
    torch.save(content, file)
    try:
        for read in (read_checkpoint, load_run):
            try:
                read(file)
            except ValueError as error:
                one_line(error)
    finally:
        file.write_bytes(bridge[path][file])


leaves = st.sampled_from(["", "a", "${b}", "???", "os.system"])
names = st.sampled_from(["_target_", "epsilon", "hidden", "_args_", "_partial_", "x"])
options = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 50), st.floats(), leaves),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=2)),
    max_leaves=4,
)
PLACES = "algorithm algorithm.network algorithm.network.hidden algorithm.network._target_ algorithm.process.epsilon "
PLACES += "algorithm.event_shape algorithm._target_ algorithm.num_steps algorithm.coupling algorithm.x data metric"


@given(place=st.sampled_from(PLACES.split()), value=options)
def test_a_config_of_a_trained_model(bridge, place, value):
    (path,) = (path for path in bridge if path.name == "run")
    file = path / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.create(bridge[path][file].decode()))
    *parents, last = place.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    file.write_text(json.dumps(config))
    try:
        load_run(path)
    except ValueError as error:
        one_line(error)
    except (HydraException, OmegaConfBaseException) as error:
        # the command line turns these into a line
        one_line(" ".join(str(error).split()))
    finally:
        file.write_bytes(bridge[path][file])
