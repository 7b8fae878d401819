"""What the gate must withstand: every known attack, tried on the real thing.

The attacks have numbers, those of the table in SECURITY.md, which says where each is tried; and each test says the
number of its own. A bad token is shown four times: to `JWTAuth.verify`, and to a running server by a client on polling
and on WebSocket with both libraries; what is answered must be the one refusal of the contract, whatever is wrong with
the token.
Somebody who is in meanwhile must not notice. "Bounded" is counted, in calls and bytes, and never measured in time.
"""
