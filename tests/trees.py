"""Make the Debian systems that tests boot, unless they are there: some minutes."""

from tests.engine import disk
from tests.machine import tree

if __name__ == "__main__":
    tree("bookworm")
    disk()  # on top of trixie
