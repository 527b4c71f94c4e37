"""Models trained on one dataset and tested on the others, by `main.py test`."""

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import permutations

from evaluation.results import RESULTS_FILE, CheckpointResults, read_results
from experiments.checkpoint_scores import results_folder
from study.plan import Study
from study.results import Result
from training.run_folder import RunFolder
from utils.config import load_config
from utils.errors import UserError, last_line
from utils.files import PROJECT_ROOT, sha256

Scores = dict[tuple[str, str], float]  # Dice at the images' own size, by (trained on, tested on)


def test_across(study: Study, results: Mapping[str, Result]) -> dict[str, Scores]:
    """The Dice of each row of `study.cross_set`: its first run of each dataset on the test images of every dataset.

    Tests whose results exist are not run again. Raises: UserError for a test that fails.
    """
    found: dict[str, Scores] = {}
    for name in study.cross_set:
        result = results.get(name)
        if result is None or not result.seeds:
            continue
        scores: Scores = {}
        for dataset in result.datasets:
            scores[dataset, dataset] = result.runs[dataset][0].results.last.native.dice.mean
        for trained_on, tested_on in permutations(result.datasets, 2):
            run = RunFolder(result.runs[trained_on][0].folder)
            scores[trained_on, tested_on] = _dice(study, run, tested_on)
        found[name] = scores
    return found


def _dice(study: Study, run: RunFolder, dataset: str) -> float:
    path, weights = study.datasets[dataset].data_config, run.path / "model.safetensors"
    data = load_config(None, path)
    file = results_folder(weights, data.require_data(), "test", data=data) / RESULTS_FILE
    if not file.is_file() or read_results(file).checkpoint.sha256 != sha256(weights):
        command = [sys.executable, str(PROJECT_ROOT / "main.py"), "test", "--device", "cpu"]
        command += ["--checkpoint", str(weights), "--data_config", str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{run.path}: test on {dataset} failed: {last_line(done.stderr)}")
    results = read_results(file)
    assert isinstance(results, CheckpointResults)
    return results.native.dice.mean
