"""The tiny model for four minutes: easier images, enough to see every curve rise."""

_base_ = "uniphd_tiny.py"

loss_weights = dict(ce=60.0)  # recognises people sooner

synthetic = dict(
    train_length=1600,
    val_length=100,
    image_size=[96, 96],
    num_people=[2, 2],
    difficulty=0.0,
    curriculum=[],
)
eval_max_side = 96

epochs = 10
lr_drop_epochs = [8]
eval_every = 2
