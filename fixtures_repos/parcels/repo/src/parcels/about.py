"""What setup.py reads."""

VERSION = "1.4.2"
