from pathlib import Path

import pytest
import torch

from sbflow.target import Ionosphere, Sonar
from sbflow.target.dataset import data_root, read_csv


def test_data_root_is_the_environment_variable_where_it_is_set(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SBFLOW_DATA", str(tmp_path))
    assert data_root() == tmp_path


def test_data_root_falls_back_to_the_cache_folder_of_the_user(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("SBFLOW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "sbflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root() == Path.home() / ".cache" / "sbflow"


@pytest.mark.parametrize(("make", "name", "source"), [(Sonar, "sonar", "151"), (Ionosphere, "ionosphere", "52")])
def test_missing_data_say_where_to_get_them_and_where_to_put_them(monkeypatch, tmp_path, make, name, source) -> None:
    monkeypatch.setenv("SBFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        make()
    message = str(caught.value)
    assert "SBFLOW_DATA" in message and "\n" not in message
    assert str(tmp_path / "bayes" / f"{name}.csv") in message
    assert f"https://archive.ics.uci.edu/dataset/{source}" in message


def test_tables_are_read_in_float64_without_their_header(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SBFLOW_DATA", str(tmp_path))
    (tmp_path / "bayes").mkdir()
    (tmp_path / "bayes" / "sonar.csv").write_text("y,x0\n1,0.1\n0,-2.5\n")
    assert torch.equal(read_csv("sonar"), torch.tensor([[1, 0.1], [0, -2.5]], dtype=torch.float64))
    assert Sonar().dim == 2


@pytest.mark.parametrize("content", [b"", b"y,x0\n", b"y,x0,x1\n1,2,3\n0,1\n", b"y\n1\n0\n", b"\xff\xfe\xf0"])
def test_a_damaged_table_is_named_with_what_it_must_hold(monkeypatch, tmp_path, content) -> None:
    monkeypatch.setenv("SBFLOW_DATA", str(tmp_path))
    (tmp_path / "bayes").mkdir()
    (tmp_path / "bayes" / "sonar.csv").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^.*sonar\.csv must be a table, a header and then rows of label .*"
    ) as caught:
        Sonar()
    assert "\n" not in str(caught.value)
