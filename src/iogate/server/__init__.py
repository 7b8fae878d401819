"""The server: namespaces, sockets, rooms, and the gate in front of them."""
