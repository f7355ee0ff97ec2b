import pytest

from codi_jax.evals.networks import Networks
from codi_jax.typing import UserError


def test_absent_weights_stop_or_are_left_out(tmp_path):
    with pytest.raises(UserError, match="alexnet-owt-7be5be79"):
        Networks(["psnr", "lpips_alex"], tmp_path)
    networks = Networks(["psnr", "lpips_alex", "dists", "fid"], tmp_path, skip_missing=True)
    assert networks.metrics == ("psnr",)
    assert [w.split(" is left out")[0] for w in networks.warnings] == ["lpips_alex", "dists", "fid"]
    with pytest.raises(UserError, match="nothing to compute"):
        Networks(["fid"], tmp_path, skip_missing=True)
    with pytest.raises(UserError, match="metric='fidd' is unknown"):
        Networks(["fidd"], tmp_path)
