"""Makes file names out of titles."""

import re


def slug(title):
    """The title in lower case, with a single hyphen for each run of other characters."""
    return re.sub(r"[^a-z0-9]", "-", title.lower()).strip("-")
