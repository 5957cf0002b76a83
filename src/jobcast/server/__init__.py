"""The server process under uvicorn."""
