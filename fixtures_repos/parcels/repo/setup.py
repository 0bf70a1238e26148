"""Packaging; `python setup.py stamp` writes the version into the package."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
about = {}
with open(os.path.join(HERE, "src", "parcels", "about.py")) as file:
    exec(file.read(), about)


def stamp():
    with open(os.path.join(HERE, "src", "parcels", "_stamp.py"), "w") as file:
        file.write("BUILT = %r\n" % about["VERSION"])


if __name__ == "__main__":
    if sys.argv[1:] == ["stamp"]:
        stamp()
    else:
        from setuptools import setup

        setup(version=about["VERSION"])
