"""The web page: drops, runs, adapters and money of a tenant. It knows what `adaptml` knows, and decides nothing."""
