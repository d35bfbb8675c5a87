"""A loop of one's own: PyAV decodes and encodes, iart enlarges: … in.mkv out.mp4 [model]."""

import sys
from collections.abc import Iterator
from fractions import Fraction

import av
import torch
from av.container import InputContainer

import iart

source, output, *rest = sys.argv[1:]
model = iart.load_model(rest[0] if rest else "light")


def frames(container: InputContainer) -> Iterator[iart.Frame]:
    """RGB in [0, 1]; a cut could be marked here, so that no window crosses it."""
    for decoded in container.decode(video=0):
        rgb = torch.from_numpy(decoded.to_ndarray(format="rgb24")).permute(2, 0, 1)
        yield iart.Frame(rgb / 255, decoded.pts or 0, Fraction(decoded.time_base or 1))


with av.open(source) as reader, av.open(output, "w") as writer:
    shape = reader.streams.video[0]
    stream = writer.add_stream("libx264", rate=shape.average_rate, options={"crf": "16"})
    stream.width, stream.height, stream.pix_fmt = 4 * shape.width, 4 * shape.height, "yuv420p"
    count = 0
    for frame in iart.upscale_frames(frames(reader), model, window=16):
        array = (frame.data * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        picture = av.VideoFrame.from_ndarray(array, "rgb24")
        picture.pts, picture.time_base = frame.pts, frame.time_base
        writer.mux(stream.encode(picture))
        count += 1
    writer.mux(stream.encode())
print(f"{output}: {count} frames")
