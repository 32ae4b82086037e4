"""A small UniPHD that learns the whole task on two CPU cores: the embedded default."""

_base_ = "uniphd.py"

backbone_options = dict(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4)
backbone_drop_path = 0.0
text_encoder = "config/tiny_text_encoder"
text_encoder_pretrained = False
hidden_dim = 128
num_heads = 4
feedforward_dim = 256
encoder_layers = 2
decoder_layers = 3
prompt_dropout = 0.0
num_groups = 10

dataset = "synthetic"
eval_max_side = 160
augment = False
num_workers = 2
batch_size = 16
eval_batch_size = 16
epochs = 10
lr = 1e-3
lr_backbone = 1e-3
lr_text_encoder = 1e-3
lr_adjacency = 1e-3
lr_drop_epochs = [9]
lr_warmup_steps = 100
