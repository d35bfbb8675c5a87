"""The site of these pages: `make docs`, which needs no network; warnings are errors."""

import importlib.metadata

project = "iart"
author = "the authors of iart"
release = importlib.metadata.version("iart-vsr")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
# Links to files of the repository lead somewhere there, not on the site.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"iart {release}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
