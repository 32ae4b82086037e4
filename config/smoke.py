"""The size of a smoke run of the paper's tables: seconds on two cores, figures without a meaning.

    bash scripts/tables/table07_attention.sh --smoke

lays a table's configuration over this one (tools/tables/smoke.py): what an ablation changes in
the paper's model it changes here, sizes in the same proportion.  As a configuration of its own it
is UniPHD itself on files in RefHuman's form.
"""

_base_ = "uniphd_tiny.py"

# --- model: everything that the tables compare is there, twice where a half of it is compared ---
backbone_options = dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4)
hidden_dim = 64
num_heads = 4
feedforward_dim = 64
encoder_layers = 2
decoder_layers = 3
num_groups = 4

# --- data --------------------------------------------------------------------------------------
dataset = "refhuman"
eval_max_side = 96
prompts_per_image = 1
share_image_features = False
num_workers = 0
prompt_probabilities = dict(text=0.5, scribble=0.25, point=0.25)

# --- training ---------------------------------------------------------------------------------
batch_size = 8
eval_batch_size = 8
epochs = 2
lr_drop_epochs = []
lr_warmup_steps = 0
amp = False
eval_every = 0
log_every = 5
