"Two processes on the CPU (gloo) under torchrun: they finish, agree and leave one record."
import json, subprocess, sys

from conftest import ROOT, clean_env


def test_two_processes(tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'simseg.training', '--preset', 'smoke',
               '--batch_size', '4', '--device', 'cpu', '--out', str(tmp_path / 'runs')]
    env = clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(tmp_path / 'cache'), GLOO_SOCKET_IFNAME='lo')
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    folder, = (tmp_path / 'runs').glob('*/s0')
    steps = [json.loads(line)['step'] for line in (folder / 'log.jsonl').read_text().splitlines()]
    assert steps == list(range(1, 7)), 'one record, by the first rank'
    assert json.loads((folder / 'metrics.json').read_text())['val_images'] == 4
