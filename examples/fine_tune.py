"""Train `light` on with pairs of one's own: … HR_FOLDER LR_FOLDER OUT.safetensors [steps].

Both folders hold clips by the same names: HR/001/00000000.png …, and LR/001/00000000.png …, a
quarter as large. What `iart train` does with an option file, with the file written here.
"""

import sys
from pathlib import Path

import yaml

from iart.train.loop import train
from iart.train.options.read import read_options
from iart.weights import convert

hr, lr, output, *rest = sys.argv[1:]
steps = int(rest[0]) if rest else 2000

options = yaml.safe_load("""
name: fine_tuned
network_g: {type: IART, embed_dim: 32, mid_channels: 32, head_channels: 16, branches: 2,
  flow_channels: [12, 16, 12, 8], flow_levels: 4, depths: [2], num_heads: [4],
  window_size: [3, 4, 4], drop_path_rate: 0.0}
path: {pretrain_network_g: light}
train:
  optim_g: {type: Adam, lr: 2.0e-4, betas: [0.9, 0.99]}
  flow_lr_mul: 0.0
  ema_decay: 0.99
  pixel_opt: {type: CharbonnierLoss}
""")
pairs = {"type": "REDSRecurrentDataset", "dataroot_gt": hr, "dataroot_lq": lr}
options["datasets"] = {"train": {**pairs, "num_frame": 3, "gt_size": 64, "batch_size_per_gpu": 2}}
options["train"]["total_iter"] = steps
options["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [steps]}
Path("fine_tuned.yml").write_text(yaml.safe_dump(options), encoding="utf-8")

train(read_options(Path("fine_tuned.yml")), device="cpu", report=print)
weights = Path(f"experiments/fine_tuned/models/net_g_{steps}.safetensors")
convert(weights, output)
print(f"{output}: iart upscale in.mkv -o out.mkv --model {output}")
