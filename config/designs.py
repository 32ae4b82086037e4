"""The task of tools/compare_designs.py, which compares designs of the decoder at equal budgets.

Fixed before any of its runs was looked at: three to six people who may stand in front of each
other, 20 groups, clicks and scribbles (a sentence takes longer to be understood than these runs
last), and 1,200 steps of 16 samples, the last sixth at a tenth of the learning rate.
"""

_base_ = "uniphd_tiny.py"

num_groups = 20
synthetic = dict(
    train_length=3200,
    val_length=300,
    image_size=[112, 112],
    num_people=[3, 6],
    difficulty=0.5,
    curriculum=[],
)
eval_max_side = 112
prompt_probabilities = dict(text=0.0, scribble=0.5, point=0.5)
eval_prompts = ["scribble", "point"]
epochs = 6
lr_drop_epochs = [5]
eval_every = 0
checkpoint_minutes = 2.0
