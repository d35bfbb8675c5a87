"""Other ways to the same numbers: C++ on the CPU, Triton on GPUs."""

# A flow this little below an integer counts as on it (pixels; what float32 resolves at 16 … 32):
# the module jumps at integers, and rounding must not decide on which side a still picture lies.
SNAP = 2.0**-19

# Float32 as two halves: numbers of maps times SCALE, so that they may be as large as 2^20; what the
# first half leaves times LOW, so that the second is as large as the first, and not denormal.
SCALE = 2.0**-4
LOW = 2.0**11
