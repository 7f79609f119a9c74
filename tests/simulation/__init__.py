"""The real decisions over services in memory, a virtual clock, and a schedule that one number stands for.

See docs/simulation.md.

`python -m tests.simulation --seed N --trace` plays one schedule again, exactly.
"""
