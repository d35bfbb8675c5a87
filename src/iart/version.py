"""Which version this is: reports and jobs name it."""

__version__ = "0.2.0.dev0"
