"""Training in three processes equals training in one."""

import torch

from tests.train import jobs


def test_three_processes_train_as_one(tmp_path):
    module = "tests.train.distributed_work"
    results = [
        jobs.run(module, tmp_path / "alone"),
        *jobs.run_processes(3, module, tmp_path / "together"),
    ]
    for code, _, stderr in results:
        assert code == 0, stderr
    alone = torch.load(tmp_path / "alone")
    together = torch.load(tmp_path / "together")
    assert alone.keys() == together.keys()
    for name in alone:
        torch.testing.assert_close(
            together[name], alone[name], rtol=1e-9, atol=1e-11, msg=name
        )
