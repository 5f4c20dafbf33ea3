"""The version of the wheel."""

VERSION = "0.1.0"
