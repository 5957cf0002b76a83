"""The adapter to python-engineio, uvicorn and websockets: one connection, and its limits."""
