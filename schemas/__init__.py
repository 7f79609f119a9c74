"""What every part of AdaptML agrees on, as data and pure code.

Nothing here reads a clock, a network or an environment variable.
"""
