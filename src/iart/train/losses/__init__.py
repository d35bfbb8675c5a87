"""Losses, one idea a file; `iart.train.step` adds them up.

    pixel.py        Charbonnier, L1, MSE, flicker    frequency_distribution.py  spectra as sets
    fourier.py      Fourier coefficients             convnext.py                ConvNeXt
    perceptual.py   VGG, style, LPIPS                adversarial.py             discriminators

Each loss takes (output, truth), b×t×3×h×w in float32, RGB in [0, 1] or beyond, and returns a
number without its weight. Outputs are compared as the network gives them: clamping them first would
hide values outside [0, 1] from the gradient.
"""
