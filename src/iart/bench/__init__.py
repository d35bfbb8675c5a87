"""Speed and memory of the network, measured against what the machine can do."""
