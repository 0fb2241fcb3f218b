"""The chores of a maintainer: every target of the Makefile explains itself and names what is there."""

import re
import shutil
import subprocess

import pytest
import yaml

from sbflow.cli import config_dir

ROOT = config_dir().parent
MAKEFILE = ROOT / "Makefile"
# what an optional dependency or the system brings
TOOLS = {"pytest", "ruff", "lint-imports", "mypy", "mkdocs", "python", "sbflow", ".ci/run"}

if not MAKEFILE.is_file():
    pytest.skip("the Makefile is not part of an installed wheel", allow_module_level=True)
if shutil.which("make") is None:
    pytest.skip("make is not installed", allow_module_level=True)

TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE.read_text(), re.MULTILINE)


def make(*words):
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_is_the_default_and_lists_every_target():
    listed = {line.split()[0] for line in make().splitlines()}
    assert listed == set(TARGETS) >= {"test", "lint", "types", "docs", "notebooks", "bench", "coverage"}


def test_no_target_is_mistaken_for_a_file():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    assert set(phony.split()) == set(TARGETS)


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "help"])
def test_a_target_runs_tools_and_files_that_exist(target):
    for line in make("--dry-run", target).splitlines():
        tool, *words = line.split()
        assert tool in TOOLS
        paths = [word for word in [tool, *words] if "/" in word]
        assert all((ROOT / path).exists() for path in paths)


def test_hooks_before_a_commit_are_local_and_fetch_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [one["repo"] for one in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {hook["entry"].split()[0] for hook in hooks} <= TOOLS
