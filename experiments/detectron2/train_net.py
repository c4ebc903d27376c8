"""Train and evaluate with Detectron2: the options of its own tools/train_net.py, for the configurations beside this file.

    python experiments/detectron2/train_net.py --config-file experiments/detectron2/tangle.yaml
    ... --num-gpus 8                                                     one machine, 8 GPUs
    ... --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT    on each of two machines, with its rank
    ... --resume                                                         go on from the last checkpoint in OUTPUT_DIR
    ... --eval-only MODEL.WEIGHTS output/tangle/model_final.pth          or a model.pt of this package
    ... SIMSEG.MU 10.0 SOLVER.IMS_PER_BATCH 8                            any key
"""
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser, default_setup, launch

from simseg.detectron2 import Trainer, add_simseg_config, register_sets


def setup(args):
    cfg = add_simseg_config(get_cfg())
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    if any(name.startswith('simseg_') for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)): register_sets(cfg)
    return cfg


def main(args):
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == '__main__':
    args = default_argument_parser(__doc__).parse_args()
    launch(main, args.num_gpus, num_machines=args.num_machines, machine_rank=args.machine_rank, dist_url=args.dist_url, args=(args,))
