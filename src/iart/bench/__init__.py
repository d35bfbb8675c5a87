"""Speed and memory of the network, measured against what the machine can do.

operations.py   what a clip costs in arithmetic     probes.py   time and memory of each stage
measure.py      one clip, stage by stage            table.py    its figures for people and programs
growth.py       clips of many sizes                 curves.py   their figures, with a picture
"""
