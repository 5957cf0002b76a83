"""The adapter to python-engineio, uvicorn and websockets: single connections and their limits."""
