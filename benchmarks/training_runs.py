"""Training runs of the command line, and the numbers that they leave."""

import json
import subprocess
import sys
import time
from pathlib import Path


def train(folder: Path, *options: str) -> dict[str, float]:
    """Run ``sbflow train`` with these options in a folder of its own and return its metrics and seconds.

    A folder that holds metrics already is read and not trained again, so that an interrupted table can be finished.
    """
    file = folder / "metrics.json"
    if not file.is_file():
        start = time.perf_counter()
        command = [sys.executable, "-m", "sbflow.cli", "train", f"run_dir={folder}", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads(file.read_text()) | {"seconds": time.perf_counter() - start}
        file.write_text(json.dumps(metrics, indent=2) + "\n")
    return json.loads(file.read_text())


def final(metrics: dict[str, float]) -> dict[str, float]:
    """Numbers of the finished run, without the prefix, and of the end of stage 1."""
    chosen = ("test/", "pretrain/test/", "seconds")
    return {name.removeprefix("test/"): round(value, 5) for name, value in metrics.items() if name.startswith(chosen)}
