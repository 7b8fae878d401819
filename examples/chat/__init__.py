"""The chat demo: an account, a token, a room whose door asks for it."""
