"""The command line: ``jobcast``."""
