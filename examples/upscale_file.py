"""Enlarge a video file: python examples/upscale_file.py in.mkv out.mkv [model]."""

import sys

import iart

source, output, *rest = sys.argv[1:]
model = iart.load_model(rest[0] if rest else "light")
result = iart.upscale_video(
    source,
    output,
    model,
    size="1080p",
    progress=lambda progress: print(f"\r{progress.frames_done} frames", end=""),
)
print(f"\n{result.output}: {result.frames} frames in {result.seconds:.1f} s")
for note in result.notes:
    print(note)
