"""Weights: names, files, formats. One table ties every published name to ours.

A file of ours is safetensors with the configuration in its metadata. A published file is a pickle
of tensors, `{"params": …}`, `{"params": …, "params_ema": …}` or a bare dictionary, with or without
`module.` before each name; its configuration is read off the tensors' shapes. Loading is strict.
"""

import re

# Our name → published name, as regular expressions; the first that matches the whole name counts.
PUBLISHED_NAMES = (
    (r"extract\.(\w+)", r"conv_first.\1"),
    (r"flow\.(mean|std)", r"spynet.\1"),
    (r"flow\.levels\.(\d+)\.(\d+)\.(\w+)", r"spynet.basic_module.\1.basic_module.\2.\3"),
    (r"align\.position_bias", r"implicit_warp.position_bias"),
    (r"align\.([qkv])\w+\.(\w+)", r"implicit_warp.\1.\2"),
    (r"branches\.(\w+)\.embed_norm\.(\w+)", r"swin_backbone.\1.patch_embed.norm.\2"),
    (r"branches\.(\w+)\.norm\.(\w+)", r"swin_backbone.\1.norm.\2"),
    (r"branches\.(\w+)\.conv\.(\w+)", r"swin_backbone.\1.conv_after_body.\2"),
    (r"branches\.(\w+)\.groups\.(\d+)\.conv\.(\w+)", r"swin_backbone.\1.layers.\2.conv.\3"),
    (
        r"branches\.(\w+)\.groups\.(\d+)\.blocks\.(\d+)\.(.+)",
        r"swin_backbone.\1.layers.\2.residual_group.blocks.\3.\4",
    ),
    (r"head\.reduce\.(\w+)", r"conv_before_upsample.\1"),
    (r"head\.up(\d)\.(\w+)", r"upconv\1.\2"),
    (r"head\.refine\.(\w+)", r"conv_hr.\1"),
    (r"head\.last\.(\w+)", r"conv_last.\1"),
)
# Inside a block.
PUBLISHED_BLOCK_NAMES = (
    (".attention.position_bias", ".attn.relative_position_bias_table"),
    (".attention.index", ".attn.relative_position_index"),
    (".attention.", ".attn."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.2.", ".mlp.fc2."),
)


def published_name(name: str) -> str:
    """The published name of one of our parameters or buffers."""
    for pattern, replacement in PUBLISHED_NAMES:
        if re.fullmatch(pattern, name):
            published = re.sub(pattern, replacement, name)
            for ours, theirs in PUBLISHED_BLOCK_NAMES:
                published = published.replace(ours, theirs)
            return published
    raise KeyError(name)
