"""Enlarge a clip that is a tensor, and measure what that is worth against interpolation."""

import torch
from torch.nn.functional import avg_pool2d

import iart

# a picture of sine waves that moves by a pixel a frame: time, RGB, height, width
y, x, t = torch.meshgrid(torch.arange(128), torch.arange(192), torch.arange(7), indexing="ij")
waves = torch.sin((x + t) / 3) * torch.sin((y - t) / 4)
truth = (waves.permute(2, 0, 1)[:, None].expand(-1, 3, -1, -1) + 1) / 2
clip = avg_pool2d(truth, 4)  # 7, 3, 32, 48

for name in iart.model_names():
    large = iart.upscale(clip, iart.load_model(name))  # 7, 3, 128, 192
    error = (large - truth).square().mean()
    print(f"{name}: {-10 * error.log10():.2f} dB")
