"""Fuzzing: what a stranger sends is made up by a machine that looks where the code goes, for as long as one likes.

`make fuzz` runs the parsers one by one (`fuzz/targets`), `python -m fuzz.live` a whole server. The documented errors
are the only harmless outcome; and what is accepted has properties that every target asks for.
"""
