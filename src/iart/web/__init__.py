"""A page in the browser for one folder of videos: `iart serve`.

folder.py    what of a folder may be read and written    command.py  forms → command lines
jobs.py      jobs on disk, each a process; previews      server.py   routes, and who may ask
page.py      the page, in Gradio                         views.py    its pieces of HTML

The work is done by processes of `iart upscale`, `iart info` and `iart compare`, whose command lines
the page shows; this one only looks at what they leave on the disk.
"""
