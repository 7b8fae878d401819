"""What the gate must withstand: every known attack, tried on the real thing.

The attacks have numbers, those of the table in SECURITY.md, and each test says the number of its own. A bad token is
shown four times: to `JWTAuth.verify`, and to a running server by a client on polling and on both WebSocket lanes; what
is answered must be the one refusal of the contract, whatever is wrong with the token. Somebody who is in meanwhile must
not notice. "Bounded" is counted, in calls and bytes, and never measured in time.

| rows | where |
|---|---|
| 1 to 10, signatures and keys | `test_signatures.py` |
| 11 to 17, parsing | `test_parsing.py` |
| 24 to 27, transport | `test_transport.py` |
| 28, somebody else's session | `test_sessions.py` |
| 30 to 33, while it lives | `test_life.py` |
| 34 and 35, hooks that fail | `test_hooks.py` |
| 36 and 37, load | `test_load.py` |

Rows 18 to 23 are about where keys come from, and are `test_keys.py`. Row 29 is about the bus of a cluster: there is no
cluster yet.
"""
