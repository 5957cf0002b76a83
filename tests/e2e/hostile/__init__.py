"""Hostile clients: their cost to the server is bounded, and an innocent client is unaffected."""
