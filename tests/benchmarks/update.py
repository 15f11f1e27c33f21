"""What an update costs and how small it is. Not a test; run it:

.venv/bin/python -m tests.benchmarks.update [rounds]

CPU of `copier update` against `copier copy` of the same template, and the lines that
a hardening of one line changes in a service.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.copy import ROOT, copier, git, released

HARDENED = "template/bulwark/web/headers.py"


def main(rounds: int) -> None:
    seconds: dict[str, list[float]] = {"copy": [], "update": []}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        template = released(here / "bulwark", ROOT)
        for number in range(rounds):
            service = here / f"service {number}"
            options = ("--vcs-ref", "v1.0.0", str(template), str(service))
            seconds["copy"].append(copier("copy", *options))
            git(service, "init", "-q")
            git(service, "add", "-A")
            git(service, "commit", "-qm", "x")
            if number == 0:
                with (template / HARDENED).open("a") as file:
                    file.write("# harder\n")
                git(template, "commit", "-qam", "x")
                git(template, "tag", "v1.0.1")
            seconds["update"].append(copier("update", str(service)))
        changed = subprocess.run(
            ["git", "diff", "--numstat"],
            cwd=here / "service 0",
            check=True,
            capture_output=True,
            text=True,
        )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<7} {median:.2f} s CPU, median of {rounds}")
    print(f"ratio   {medians['update'] / medians['copy']:.2f}")
    print(f"lines added and removed by one more line in {HARDENED}:")
    print(changed.stdout, end="")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
