"""Make the Debian systems that tests boot, unless they are there: some minutes."""

from tests.support.engine import disk
from tests.support.machine import tree

if __name__ == "__main__":
    tree("bookworm")
    disk()  # on top of trixie
