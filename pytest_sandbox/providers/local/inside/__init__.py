"""The half of the local engine that runs in its launcher process: standard library only."""
