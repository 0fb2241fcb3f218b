"""Whether the interval of one run of the particle sampler covers log Z as often as it says, on a real posterior."""

import pytest
import torch

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import Sonar
from sbflow.target.dataset import data_root
from sbflow.whitening import FullRank


@pytest.mark.slow
@pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
def test_intervals_of_single_runs_cover_log_z_in_19_of_20():
    torch.manual_seed(0)
    sampler = ParticleDenoisingDiffusionSampler(Sonar(), FullRank(), OrnsteinUhlenbeck())
    evidence = sampler.estimate(num_particles=500, replicates=200, seed=3)
    errors = (evidence.log_z_replicates - sampler.target.log_normalizer).abs()
    covered = (errors < 1.96 * evidence.log_z_stderr_replicates).double().mean()
    # a standard error of 1.5 %, and an interval that is exact only for many particles
    assert 0.90 <= covered <= 0.985
