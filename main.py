"""Training and evaluation from the command line.

    python main.py -c config/uniphd_tiny.py --output_dir outputs/tiny
    python main.py -c config/uniphd.py --coco_path data/RefHuman --eval --resume uniphd.pth \
        --eval_trigger text

Several processes: `torchrun --nproc_per_node=4 main.py ...`, `python -m torch.distributed.launch
--nproc_per_node=4 main.py ...`, or `srun python main.py ...` in a SLURM job.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets import build_dataset, build_loader
from datasets.evaluation import parse_selections
from datasets.prompts import PROMPT_KINDS, PromptSampler, get_kind, parse_kinds
from models import build_model, build_parameter_groups
from models.performance.compilation import compile_layers
from models.performance.memory import keep_freed_memory
from trainer import Evaluation, Saving, Trainer
from util import checkpoint, distributed
from util.checkpoint_content import check_training
from util.command_line import output_folder, require_range, run_program
from util.config import DECLARATIONS, Config, OptionsAction
from util.errors import UserError, shown
from util.gradient_exchange import GradientExchange
from util.logging import LOGGER_NAME, setup
from util.loss_means import NonFiniteLossError
from util.optimization import LearningRateSchedule, Optimization, autocast_dtype
from util.run_folder import RunFolder, find_newest
from util.run_record import RunRecord, changed_settings, weights_facts
from util.stopping import RunStoppedError
from util.trackers import TRACKERS, parse_trackers
from util.weight_average import WeightAverage

DEFAULT_CONFIG = Path(__file__).parent / "config" / "uniphd_tiny.py"

logger = logging.getLogger(LOGGER_NAME)


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags that name a setting replace the configuration's value."""
    parser = argparse.ArgumentParser(
        description="Train a model, or evaluate it with --eval.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run = parser.add_argument_group("run")
    run.add_argument("-c", "--config_file", default=str(DEFAULT_CONFIG), help="settings")
    run.add_argument(
        "--options",
        nargs="+",
        action=OptionsAction,
        default={},
        metavar="KEY=VALUE",
        help="change settings; they win over the other flags",
    )
    run.add_argument("--output_dir", default="outputs", help="folder of everything that is written")
    run.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the training that the output folder holds, once there is an epoch to save",
    )
    run.add_argument("--device", help="cuda, cuda:1 or cpu; by default cuda where there is one")
    run.add_argument("--seed", type=int, help="setting 'seed'")
    run.add_argument("--num_workers", type=int, help="setting 'num_workers'")
    run.add_argument("--amp", action="store_true", help="mixed precision")
    run.add_argument("--note", default="", help="a remark, kept in every record of log.txt")
    run.add_argument(
        "--save_log",
        action="store_true",
        help="keep the screen's lines in info.txt, and curves for TensorBoard in tensorboard/",
    )
    run.add_argument(
        "--tracker",
        type=parse_trackers,
        action="extend",
        default=[],
        metavar="NAMES",
        help=f"where curves and images go: {', '.join(TRACKERS)}, or a comma list",
    )
    run.add_argument(
        "--local_rank", "--local-rank", type=int, help="set by the launcher, where it does"
    )

    data = parser.add_argument_group("data")
    data.add_argument("--coco_path", help="folder of the data set")
    data.add_argument("--dataset_file", help="setting 'dataset'")

    model = parser.add_argument_group("model")
    model.add_argument("--backbone", help="setting 'backbone'")
    model.add_argument("--swin_pretrain_path", help="ImageNet weights of the Swin authors")
    model.add_argument("--no_mask", action="store_true", help="no mask head: pose only")
    model.add_argument("--within_type", help="setting 'within_type'")
    model.add_argument(
        "--freeze_text_encoder", action="store_true", help="do not train the text encoder"
    )

    start = parser.add_argument_group("start")
    start.add_argument(
        "--resume",
        help="checkpoint to evaluate, or whose training to continue; 'auto': the newest whole one "
        "in the output folder, if there is any",
    )
    start.add_argument("--pretrain_model_path", help="weights to start from (or to evaluate)")
    start.add_argument(
        "--finetune_ignore",
        nargs="+",
        default=[],
        metavar="PART",
        help="entries of --pretrain_model_path to leave out: parts of their names",
    )
    start.add_argument(
        "--start_epoch", type=int, default=0, help="first epoch, unless --resume knows it"
    )

    kinds = f"{', '.join(PROMPT_KINDS)}, a comma list of these, or all"
    training = parser.add_argument_group("training")
    training.add_argument(
        "--train_trigger",
        type=parse_kinds,
        metavar="KINDS",
        help=f"{kinds}: prompts to train with",
    )
    training.add_argument(
        "--find_unused_params",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="several processes: look for parameters without gradient in every step. No model here "
        "needs it: UniPHD names those that only some kinds of prompt use; one of your own may have "
        "others",
    )

    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--eval", action="store_true", help="evaluate instead of training")
    evaluation.add_argument(
        "--eval_trigger",
        type=parse_kinds,
        metavar="KINDS",
        help=f"{kinds}: prompts to evaluate with",
    )
    evaluation.add_argument(
        "--save_predictions",
        action="store_true",
        help="write predictions_{prompt}.json in COCO's results format",
    )
    evaluation.add_argument(
        "--save_images",
        "--save_pictures",
        type=int,
        default=0,
        metavar="N",
        help="draw prediction and ground truth of the first N samples into images/",
    )
    return parser


def read_config(arguments: argparse.Namespace) -> Config:
    """The configuration file with the command line's changes: flags first, then `--options`.

    Raises:
        UserError: the file or an option cannot be used, or names an unknown kind of prompt or
            selection.
        FileNotFoundError: there is no such file.
    """
    cfg = Config.fromfile(arguments.config_file, base=DECLARATIONS)
    changes = {
        "seed": arguments.seed,
        "num_workers": arguments.num_workers,
        "amp": arguments.amp or None,
        "coco_path": arguments.coco_path,
        "dataset": arguments.dataset_file,
        "backbone": arguments.backbone,
        "backbone_pretrained": arguments.swin_pretrain_path,
        "mask_head": False if arguments.no_mask else None,
        "within_type": arguments.within_type,
        "freeze_text_encoder": arguments.freeze_text_encoder or None,
        "eval_prompts": arguments.eval_trigger,
    }
    if arguments.train_trigger is not None:
        excluded = [
            name for name in cfg.prompt_probabilities if name not in arguments.train_trigger
        ]
        changes |= {f"prompt_probabilities.{name}": 0.0 for name in excluded}
    cfg.merge_from_dict({key: value for key, value in changes.items() if value is not None})
    cfg.merge_from_dict(arguments.options)
    cfg.check()
    for name in (*cfg.prompt_probabilities, *cfg.eval_prompts):
        get_kind(name)
    parse_selections(cfg.select_results)
    return cfg


def check_flags(arguments: argparse.Namespace, cfg: Config) -> None:
    """Refuse flags that contradict each other or the settings, before anything is built or read.

    Raises:
        UserError: they do.
    """
    weights = arguments.resume or arguments.pretrain_model_path
    if arguments.resume and arguments.resume != "auto" and arguments.pretrain_model_path:
        raise UserError("--resume and --pretrain_model_path both name the weights; use one.")
    if arguments.finetune_ignore and not weights:
        raise UserError(
            "--finetune_ignore leaves out entries of a checkpoint, and none is given; add "
            "--pretrain_model_path, or drop it."
        )
    for name in ("overwrite", "start_epoch", "tracker") if arguments.eval else ():
        if getattr(arguments, name):
            raise UserError(f"--{name} belongs to a training, and --eval does not train; drop one.")
    if not 0 <= arguments.start_epoch < cfg.epochs:
        raise UserError(
            f"There is nothing to train: {cfg.epochs} epochs in all (setting 'epochs'), starting "
            f"with number {shown(arguments.start_epoch)} (--start_epoch, from 0)."
        )
    require_range(0, 2**31, save_images=arguments.save_images, local_rank=arguments.local_rank)


def read_start(
    arguments: argparse.Namespace, model: str
) -> tuple[dict[str, Any] | None, Path | None]:
    """The checkpoint to start from, and the file if its training goes on.

    Args:
        arguments: of the command line.
        model: whose checkpoint it has to be.

    Raises:
        UserError: flags that contradict each other, or see `util.checkpoint.load`.
        FileNotFoundError: no such checkpoint.
    """
    path = None if arguments.resume is None else Path(arguments.resume)
    if arguments.resume == "auto":
        path = find_newest(Path(arguments.output_dir))
    if path is not None:
        if arguments.overwrite and not arguments.eval:
            raise UserError("--resume continues what --overwrite would replace; use one.")
        start = checkpoint.load(path, model)
        if arguments.eval:
            return start, None
        check_training(start, path)
        return start, path
    if arguments.pretrain_model_path:
        return checkpoint.load(arguments.pretrain_model_path, model), None
    return None, None


def run(arguments: argparse.Namespace) -> None:
    """Build everything, then evaluate or train."""
    cfg = read_config(arguments)
    check_flags(arguments, cfg)
    device = distributed.initialize(arguments.device, arguments.local_rank)
    if device.type == "cpu":
        keep_freed_memory()
    output_dir = output_folder(arguments.output_dir, "--output_dir")
    setup(output_dir / "info.txt" if arguments.save_log else None)

    start, resumes = read_start(arguments, cfg.model)
    folder = None
    if not arguments.eval:
        folder = RunFolder(
            output_dir,
            cfg,
            resumes=resumes,
            overwrite=arguments.overwrite,
            trackers=["tensorboard"] * arguments.save_log + arguments.tracker,
            keep_checkpoints=cfg.keep_checkpoints,
        )
    elif distributed.is_main_process():
        cfg.dump(output_dir / "config_eval.py")

    if resumes is not None and (changes := changed_settings(start.get("config"), cfg, resumes)):
        logger.warning("Settings differ from those of %s: %s", resumes, "; ".join(changes))
    suffix = "_eval" if arguments.eval else ""
    facts = {
        "mode": "evaluation" if arguments.eval else "training",
        "note": arguments.note,
        "settings": f"config{suffix}.py",
        "resumes": None if resumes is None else str(resumes),
        "weights": weights_facts(arguments.resume or arguments.pretrain_model_path, start),
    }
    with RunRecord(output_dir / f"run{suffix}.json", facts, device) as record:
        build_and_run(cfg, arguments, device, start, resumes, folder, record)


def build_and_run(
    cfg: Config,
    arguments: argparse.Namespace,
    device: torch.device,
    start: dict[str, Any] | None,
    resumes: Path | None,
    folder: RunFolder | None,
    record: RunRecord,
) -> None:
    """The second half of `run`: everything that may take long.

    Args:
        cfg: all settings.
        arguments: of the command line.
        device: of this process.
        start: content of the checkpoint to start from; None: there is none.
        resumes: the checkpoint, if its training goes on.
        folder: of the training; None: it is an evaluation.
        record: of this start.
    """
    validation = build_split_loader(cfg, "val")  # its faults are told before a model is built
    torch.manual_seed(cfg.seed)
    ignore = [] if resumes is not None else arguments.finetune_ignore
    weights = None if start is None else start["model"]
    model, criterion, postprocessor = build_model(cfg, weights, ignore)
    model, criterion = model.to(device), criterion.to(device)
    if cfg.compile != "off":
        compile_layers(model, cfg.compile, static_shapes=bool(cfg.pad_sides))
    parameters = sum(p.numel() for p in model.parameters())
    record.update(parameters=parameters)
    logger.info(
        "%s with %s parameters on %s, %d process(es)%s",
        type(model).__name__,
        f"{parameters:,}",
        device,
        distributed.world_size(),
        f"; {arguments.note}" if arguments.note else "",
    )
    evaluation = Evaluation(
        postprocessor,
        validation,
        prompts=cfg.eval_prompts,
        selections=parse_selections(cfg.select_results),
        output_dir=Path(arguments.output_dir),
        device=device,
        amp_dtype=autocast_dtype(device, cfg.amp),
        save_predictions=arguments.save_predictions,
        num_images=arguments.save_images,
    )
    if folder is not None:
        trainer = build_trainer(
            cfg, arguments, model, criterion, evaluation, folder, None if resumes is None else start
        )
        record.update(batch=trainer.loader.batch_sampler.sizes())
        trainer.run()
        return
    if start is None:
        logger.warning("No --resume or --pretrain_model_path: this model is untrained.")
    evaluation.run(model)


def build_split_loader(cfg: Config, split: str) -> DataLoader:
    """This process' loader of the training or validation data."""
    dataset = build_dataset(cfg, split)
    return build_loader(cfg, dataset, distributed.rank(), distributed.world_size())


def build_trainer(
    cfg: Config,
    arguments: argparse.Namespace,
    model: nn.Module,
    criterion: nn.Module,
    evaluation: Evaluation,
    folder: RunFolder,
    resume: dict[str, Any] | None,
) -> Trainer:
    """The training that the settings describe, of a model on its device."""
    device = evaluation.device
    optimization = Optimization(
        model,
        build_parameter_groups(model, cfg),
        weight_decay=cfg.weight_decay,
        schedule=LearningRateSchedule(tuple(cfg.lr_drop_epochs), cfg.lr_warmup_steps),
        device=device,
        clip_max_norm=cfg.clip_max_norm,
        amp_dtype=evaluation.amp_dtype,
        exchange=GradientExchange(
            model,
            bucket_mb=cfg.gradient_bucket_mb,
            bfloat16=cfg.gradient_bfloat16,
            find_unused_parameters=arguments.find_unused_params,
        ),
    )
    prompts = None
    if model.takes_prompts:
        prompts = PromptSampler(dict(cfg.prompt_probabilities), cfg.seed)
    return Trainer(
        model,
        criterion,
        build_split_loader(cfg, "train"),
        optimization,
        evaluation,
        folder,
        prompts=prompts,
        device=device,
        seed=cfg.seed,
        epochs=cfg.epochs,
        start_epoch=arguments.start_epoch,
        resume=resume,
        saving=Saving(
            steps=cfg.checkpoint_steps,
            minutes=cfg.checkpoint_minutes,
            every=cfg.checkpoint_every,
            eval_every=cfg.eval_every,
        ),
        average=WeightAverage(model, cfg.ema_decay) if cfg.ema_decay > 0 else None,
        log_every=cfg.log_every,
        note=arguments.note,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    The exit status is 1 after a non-finite loss, 128 + a signal's number after a training that was
    saved and ended because of it, else `run_program`'s.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status = run_program(lambda: run(arguments))
    except NonFiniteLossError as error:
        if distributed.is_main_process():
            print(f"error: {error}", file=sys.stderr)
        status = 1
    except RunStoppedError as stopped:
        if distributed.is_main_process():
            print(stopped, file=sys.stderr)
        status = 128 + stopped.number
    gc.collect()  # loaders that an error has left dismiss their workers when they go
    # After an error of this process alone, the others may be waiting for it: just leave.
    if status == 0:
        distributed.shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
