"""The local cloud: starts the emulators and servers and wires them as terraform/ wires the real ones."""
