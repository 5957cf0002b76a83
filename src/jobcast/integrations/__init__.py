"""Adapters to web frameworks, one module each. They share no code with the server process."""
