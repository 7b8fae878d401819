"""What moves the bytes of a connection: HTTP long-polling and WebSocket. They decide nothing."""
