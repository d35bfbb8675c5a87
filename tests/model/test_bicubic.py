import torch

from iart.model.bicubic import Bicubic
from iart.pictures.resize import imresize


def test_bicubic_is_imresize_of_every_frame():
    clip = torch.rand(2, 3, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    large = Bicubic()(clip)
    assert large.shape == (2, 3, 3, 28, 36)
    torch.testing.assert_close(large[1, 2], imresize(clip[1, 2], 4))
