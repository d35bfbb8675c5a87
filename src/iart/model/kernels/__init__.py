"""Other ways to the same numbers: C++ on the CPU, Triton on GPUs."""

# A flow this little below an integer counts as on it (pixels; what float32 resolves at 16 … 32):
# the module jumps at integers, and rounding must not decide on which side a still picture lies.
SNAP = 2.0**-19
