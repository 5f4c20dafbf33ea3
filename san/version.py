"""The version of the package; its wheel has it from here."""

__version__ = "0.1.0"
