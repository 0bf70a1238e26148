"""What a trusted run of the base says: which tests there are, and what becomes of each.

Made once per base and kept in this user's cache. Knows no pytest and no verdict.
"""
