"""Short stories with a name, for what chance brings about too seldom."""

from __future__ import annotations

from tests.gate.model import ROOT, STAFF, Rules
from tests.gate.stories import RULES, Happening

GOOD, NOW, NONE = "good", 0, frozenset[str]()
ALL = "staff speak moderate"

SCENES: dict[str, tuple[Rules, list[Happening]]] = {
    "what was queued for a room or a namespace that is lost is not sent": (
        RULES["token at connect"],
        [
            ("connect", 0, ROOT, ("new", "ann", 9, 90, ALL, GOOD), NONE, True),
            ("connect", 0, STAFF, ("again", 0), NONE, True),
            ("mods", 0),
            ("stall", 0),
            ("emit", ROOT, "mods"),
            ("emit", ROOT, "user:ann"),
            ("emit", STAFF, None),
            ("authenticate", 0, ROOT, ("new", "ann", NOW, 90, "speak", GOOD), NONE, True),
            ("emit", ROOT, "mods"),
            ("unstall", 0),
        ],
    ),
    "nothing that was queued is sent after the end of a token": (
        RULES["token at connect"],
        [
            ("connect", 0, ROOT, ("new", "ann", NOW, 3, ALL, GOOD), NONE, True),
            ("connect", 1, ROOT, ("again", 0), NONE, False),
            ("stall", 0),
            ("stall", 1),
            ("emit", ROOT, None),
            ("time", 7.0),
            ("unstall", 0),
            ("unstall", 1),
        ],
    ),
    "the deadline is not put off by asking again": (
        RULES["in band"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            ("time", 6.1),
            ("connect", 0, ROOT, None, NONE, True),
            ("time", 1.1),
        ],
    ),
    "the deadline is not put off by asking for another namespace": (
        RULES["in band"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            ("time", 6.1),
            ("connect", 0, STAFF, None, NONE, True),
            ("time", 1.1),
        ],
    ),
    "the deadline is not put off by leaving": (
        RULES["in band"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            ("time", 6.1),
            ("leave", 0, ROOT),
            ("time", 1.1),
        ],
    ),
    "who waits in a second namespace is ended at the deadline too": (
        RULES["in band"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            ("connect", 0, STAFF, None, NONE, True),
            ("authenticate", 0, ROOT, ("new", "ann", NOW, 90, ALL, GOOD), NONE, True),
            ("time", 7.0),
            ("time", 1.1),
            ("emit", ROOT, None),
        ],
    ),
    "a guest has three attempts": (
        RULES["guests"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            *[("authenticate", 0, ROOT, ("new", "ann", NOW, 90, ALL, "forged"), NONE, True)] * 3,
            ("authenticate", 0, ROOT, ("new", "ann", NOW, 90, ALL, GOOD), NONE, True),
        ],
    ),
    "what is refused in band is an attempt": (
        RULES["in band"],
        [
            ("connect", 0, ROOT, None, NONE, True),
            ("connect", 0, STAFF, None, frozenset({"user"}), True),
            *[
                thing
                for _ in range(4)
                for thing in (
                    ("authenticate", 0, ROOT, ("new", "ann", NOW, 90, ALL, "forged"), NONE, True),
                    ("goodbye", 0, ROOT),
                    ("connect", 0, ROOT, None, NONE, True),
                )
            ],
            ("authenticate", 0, STAFF, ("new", "ann", NOW, 90, ALL, GOOD), NONE, True),
        ],
    ),
    "a connect that a refresh of the same second overtakes brings the old token not back": (
        RULES["token at connect"],
        [
            ("connect", 0, ROOT, ("new", "ann", NOW, 90, ALL, GOOD), NONE, True),
            ("connect", 0, STAFF, ("again", 0), frozenset({"middleware"}), True),
            ("authenticate", 0, ROOT, ("new", "ann", NOW, 90, "staff", GOOD), NONE, True),
            ("release", 0, True),
        ],
    ),
    "one token for two namespaces at once is no refresh": (
        RULES["token at connect"],
        [
            ("connect", 0, ROOT, ("new", "ann", NOW, 90, ALL, GOOD), frozenset({"user"}), True),
            ("connect", 0, STAFF, ("again", 0), frozenset({"user"}), True),
            ("release", 0, True),
            ("release", 0, True),
        ],
    ),
}
