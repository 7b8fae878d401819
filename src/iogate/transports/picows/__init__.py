"""WebSockets on picows, under uvicorn: no ASGI between the frames and the connection."""
