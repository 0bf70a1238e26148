raise RuntimeError("conftest.py says to leave this file alone")
