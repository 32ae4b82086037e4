"""Training and evaluation of UniPHD from the command line.

    python main.py -c config/uniphd_tiny.py --output_dir outputs/tiny
    python main.py -c config/uniphd.py --coco_path data/RefHuman --eval --resume uniphd.pth \
        --eval_trigger text

Several processes: `torchrun --nproc_per_node=4 main.py ...`, `python -m torch.distributed.launch
--nproc_per_node=4 main.py ...`, or `srun python main.py ...` in a SLURM job.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import engine
from datasets import build_dataset, build_loader
from datasets.refhuman import PROMPT_KINDS
from datasets.skeleton import SKELETONS
from models import build_model, build_parameter_groups
from util import checkpoint, distributed
from util.command_line import run_program
from util.config import DECLARATIONS, Config, ConfigError, OptionsAction
from util.logging import LOGGER_NAME, setup

DEFAULT_CONFIG = Path(__file__).parent / "config" / "uniphd_tiny.py"

logger = logging.getLogger(LOGGER_NAME)


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags that name a setting replace the configuration's value."""
    parser = argparse.ArgumentParser(
        description="Train UniPHD, or evaluate it with --eval.",
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
        "--local_rank", "--local-rank", type=int, help="set by the launcher, where it does"
    )

    data = parser.add_argument_group("data")
    data.add_argument("--coco_path", help="folder of RefHuman")
    data.add_argument("--dataset_file", help="refhuman or synthetic")

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
        help="checkpoint to evaluate, or whose training to continue; 'auto': checkpoint.pth of the "
        "output folder, if it is there",
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

    training = parser.add_argument_group("training")
    training.add_argument(
        "--train_trigger",
        type=prompt_kinds,
        metavar="KINDS",
        help="text, point, scribble, a comma list of these, or all: prompts to train with",
    )
    training.add_argument(
        "--find_unused_params",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="several processes: look for parameters without gradient in every step. UniPHD has "
        "them (a prompt kind uses only its own projections), so it cannot train without",
    )

    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--eval", action="store_true", help="evaluate instead of training")
    evaluation.add_argument(
        "--eval_trigger",
        type=prompt_kinds,
        metavar="KINDS",
        help="text, point, scribble, a comma list of these, or all: prompts to evaluate with",
    )
    evaluation.add_argument(
        "--save_predictions",
        action="store_true",
        help="write predictions_{text,point,scribble}.json in COCO's results format",
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


def prompt_kinds(text: str) -> list[str]:
    """Prompt kinds from a comma list of them; "all" is every one.

    Raises:
        argparse.ArgumentTypeError: an unknown kind.
    """
    if text == "all":
        return list(PROMPT_KINDS)
    kinds = [kind.strip() for kind in text.split(",")]
    for kind in kinds:
        if kind not in PROMPT_KINDS:
            raise argparse.ArgumentTypeError(
                f"unknown trigger '{kind}'; expected {', '.join(PROMPT_KINDS)}, a comma list of "
                f"these, or all"
            )
    return list(dict.fromkeys(kinds))


def read_config(arguments: argparse.Namespace) -> Config:
    """The configuration file with the command line's changes.

    Raises:
        ConfigError: the file or an option cannot be used.
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
    cfg.merge_from_dict({key: value for key, value in changes.items() if value is not None})
    cfg.merge_from_dict(arguments.options)
    if arguments.train_trigger is not None:
        excluded = [kind for kind in PROMPT_KINDS if kind not in arguments.train_trigger]
        cfg.merge_from_dict({f"prompt_probabilities.{kind}": 0.0 for kind in excluded})
    cfg.check()
    return cfg


def read_start(arguments: argparse.Namespace) -> tuple[dict[str, Any] | None, bool]:
    """The checkpoint to start from, and whether its training goes on.

    Raises:
        ConfigError: two checkpoints at once.
        FileNotFoundError, ValueError: see `util.checkpoint.load`.
    """
    path = arguments.resume
    if path == "auto":
        path = Path(arguments.output_dir) / "checkpoint.pth"
        path = path if path.is_file() else None
    if path is not None:
        if arguments.pretrain_model_path and arguments.resume != "auto":
            raise ConfigError("--resume and --pretrain_model_path both name the weights; use one.")
        return checkpoint.load(path), not arguments.eval
    if arguments.pretrain_model_path:
        return checkpoint.load(arguments.pretrain_model_path), False
    return None, False


def build_with_weights(
    cfg: Config, start: dict[str, Any] | None, ignore: Sequence[str]
) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """Model, criterion and postprocessor, with the weights of a checkpoint where there is one.

    Parts that the checkpoint fills need no ImageNet or RoBERTa file.
    """
    if start is None:
        return build_model(cfg)
    left_out = [name for name in start["model"] if any(part in name for part in ignore)]
    cfg = Config(cfg)
    if not any(name.startswith("backbone.") for name in left_out):
        cfg.backbone_pretrained = None
    if not any(name.startswith("prompt_encoder.text_backbone.") for name in left_out):
        cfg.text_encoder_pretrained = False
    model, criterion, postprocessor = build_model(cfg)
    checkpoint.load_weights(model, start["model"], ignore)
    return model, criterion, postprocessor


def run(arguments: argparse.Namespace) -> None:
    """Build everything and hand it to the engine."""
    cfg = read_config(arguments)
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    device = distributed.initialize(arguments.device or default_device, arguments.local_rank)
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    setup(output_dir / "info.txt" if arguments.save_log else None)
    if distributed.is_main_process():
        cfg.dump(output_dir / ("config_eval.py" if arguments.eval else "config.py"))

    prompts = engine.PromptSampler(dict(cfg.prompt_probabilities), cfg.seed)
    start, resumes = read_start(arguments)
    torch.manual_seed(cfg.seed)
    ignore = [] if resumes else arguments.finetune_ignore
    model, criterion, postprocessor = build_with_weights(cfg, start, ignore)
    model, criterion = model.to(device), criterion.to(device)
    logger.info(
        "%s with %s parameters on %s, %d process(es)%s",
        type(model).__name__,
        f"{sum(p.numel() for p in model.parameters()):,}",
        device,
        distributed.world_size(),
        f"; {arguments.note}" if arguments.note else "",
    )

    processes = distributed.rank(), distributed.world_size()
    dataset = build_dataset(cfg, "val")
    evaluation = engine.Evaluation(
        loader=build_loader(cfg, dataset, *processes),
        ground_truth=dataset.ground_truth(),
        kinds=tuple(cfg.eval_prompts),
        skeleton=SKELETONS[cfg.skeleton],
        save_predictions=arguments.save_predictions,
        num_images=arguments.save_images,
    )
    if arguments.eval:
        if start is None:
            logger.warning("No --resume or --pretrain_model_path: this model is untrained.")
        amp_dtype = engine.autocast_dtype(device) if cfg.amp else None
        engine.evaluate_all(model, postprocessor, evaluation, device, output_dir, amp_dtype)
        return

    optimizer = torch.optim.AdamW(
        build_parameter_groups(model, cfg), lr=cfg.lr, weight_decay=cfg.weight_decay
    )
    settings = engine.Training(
        epochs=cfg.epochs,
        prompts=prompts,
        schedule=engine.LearningRateSchedule(tuple(cfg.lr_drop_epochs), cfg.lr_warmup_steps),
        clip_max_norm=cfg.clip_max_norm,
        amp=cfg.amp,
        log_every=cfg.log_every,
        checkpoint_every=cfg.checkpoint_every,
        eval_every=cfg.eval_every,
        find_unused_parameters=arguments.find_unused_params,
        start_epoch=arguments.start_epoch,
        tensorboard=arguments.save_log,
        note=arguments.note,
    )
    engine.train(
        model,
        criterion,
        postprocessor,
        optimizer,
        build_loader(cfg, build_dataset(cfg, "train"), *processes),
        evaluation,
        settings,
        device=device,
        output_dir=output_dir,
        config=cfg.to_dict(),
        resume=start if resumes else None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after a non-finite loss, else `run_program`'s."""
    arguments = build_parser().parse_args(argv)
    try:
        status = run_program(lambda: run(arguments))
    except engine.NonFiniteLossError as error:
        if distributed.is_main_process():
            print(f"error: {error}", file=sys.stderr)
        status = 1
    # After an error of this process alone, the others may be waiting for it: just leave.
    if status == 0:
        distributed.shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
