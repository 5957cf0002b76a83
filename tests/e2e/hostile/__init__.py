"""Hostile clients: what they may cost the server, and that an innocent client notices nothing."""
