"""Namespaces: their sockets, rooms, broadcasts and handlers. They know sessions and identities, but not the gate."""
