"""Learn a few images of RefHuman by heart: the shortest proof that the real path learns.

    python tools/make_subset.py --input data/RefHuman --output data/RefHuman_subset --max_side 192
    python main.py -c config/refhuman_subset.py --output_dir outputs/subset

trains and evaluates on the same pairs, in about a quarter of an hour on two cores.
"""

_base_ = "uniphd_tiny.py"

dataset = "refhuman"
coco_path = "data/RefHuman_subset"
eval_max_side = 192
num_workers = 0

prompt_probabilities = dict(text=0.5, scribble=0.25, point=0.25)
epochs = 240  # of five batches
lr_drop_epochs = [180, 225]
eval_every = 40
log_every = 5
