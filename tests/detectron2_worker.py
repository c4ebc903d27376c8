"Run by tests/test_detectron2.py where Detectron2 is built: its trainer on the batches of our own loader; what both tests and two processes need."
import json, sys
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.engine import HookBase, defaults, launch
from detectron2.utils import comm

from simseg.config import config
from simseg.data.loader import loader
from simseg.detectron2 import Trainer, add_simseg_config, register_sets
from simseg.detectron2_bridge import to_inputs
from simseg.losses.box import box_masks
from simseg.recipe import data_sets


def configured(c, out):
    cfg = add_simseg_config(get_cfg(), c)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ('simseg_train',), ('simseg_val',)
    cfg.merge_from_list(['MODEL.DEVICE', 'cpu', 'DATALOADER.NUM_WORKERS', 0, 'OUTPUT_DIR', str(out), 'SOLVER.CHECKPOINT_PERIOD', c.save_every])
    register_sets(cfg)
    return cfg


def batches(c, start):
    return loader(data_sets(c).train, c.sizes, c.max_size, c.flip, c.batch_size, c.steps, c.seed, start, rank=comm.get_rank(),
                  world=comm.get_world_size())


def fill(memory, c): # what a few steps do not learn: masks to paste, and prototypes
    batch = next(iter(batches(c, 0)))
    boxes = batch.flat()[0]
    memory.prototypes.seen.fill_(True)
    memory.bank.push(batch, .99 * box_masks(boxes, [n // 4 for n in batch.images.shape[-2:]]), torch.ones(len(boxes)), c.tau_high)


class Record(HookBase):
    "The losses of every step; `die` ends the training in the middle of one."
    def __init__(self, die=None): self.log, self.die = [], die

    def after_step(self):
        self.log.append({k: v for k, (v, _) in self.trainer.storage.latest().items() if k.startswith('loss_')})
        if self.trainer.iter == self.die: raise ZeroDivisionError('killed')


class Side(Trainer):
    "Reads the batches of our own loader, from the step where training starts."
    c = None

    def build_train_loader(self, cfg=None):
        side = self
        class Feed:
            def __iter__(self): return map(to_inputs, batches(side.c, side.start_iter))
        return Feed()


def trained(c, out, resume=False, die=None): # the trainer, after training; the losses of every step
    Side.c = c
    trainer = Side(configured(c, out))
    trainer.resume_or_load(resume)
    if trainer.model_state.memory and not resume: fill(trainer.model_state.memory, c)
    record = Record(die)
    trainer.register_hooks([record])
    try: trainer.train()
    except ZeroDivisionError: pass
    return trainer, record.log


Side.model_state = property(lambda self: getattr(self.model, 'module', self.model).state)


def ends(trainer): # all that a training leaves
    state = trainer.model_state
    return {k: v for k, v in state.state_dict().items() if k != 'optimizer'}


def told(trainer): # of this process, short
    found = ends(trainer)
    def total(d): return sum(v.double().abs().sum().item() for v in d.values() if v.is_floating_point() and v.dim())
    bank = [[e['labels'].tolist(), e['place'].tolist(), e['data'].sum().item()] for e in found['memory']['bank']['entries']]
    return dict(step=found['step'], model=sum(p.double().abs().sum().item() for p in trainer.model.parameters()), teacher=total(found['teacher']),
                prototypes=total(found['memory']['prototypes']), bank=bank)


def two(out):
    defaults.create_ddp_model = lambda model, **_: torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False) # theirs wants GPUs
    c = config('smoke', device='cpu', batch_size=4, steps=8, save_every=4, backbone='tf_efficientnet_lite0', weights='package',
               tau_low=.5, tau_high=.5, tau=.1, warmup_share=.25, score_threshold=0.) # eight steps find little
    whole, log = trained(c, out/'whole')
    trained(c, out/'half', die=5)
    again, _ = trained(c, out/'half', resume=True)
    result = comm.gather(dict(whole=told(whole), again=told(again), start=again.start_iter, log=log, results=whole._last_eval_results))
    if comm.is_main_process(): print('RESULT', json.dumps(result), flush=True)


if __name__ == '__main__': launch(two, 2, dist_url='auto', args=(Path(sys.argv[1]),))
