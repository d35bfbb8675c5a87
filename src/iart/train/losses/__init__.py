"""Losses; `iart.train.step` adds them up, those of `iart.train.discriminators` too.

    pixel.py        Charbonnier, L1, MSE, flicker, Fourier coefficients
    perceptual.py   VGG, style, LPIPS, spectra as sets, ConvNeXt

Each loss takes (output, truth), b×t×3×h×w in float32, RGB in [0, 1] or beyond, and returns a
number without its weight. Outputs are compared as the network gives them: clamping them first would
hide values outside [0, 1] from the gradient.
"""
