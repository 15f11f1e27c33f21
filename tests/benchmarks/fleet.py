"""What bin/fleet costs for 20 services. Not a test; run it:

.venv/bin/python -m tests.benchmarks.fleet [services]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.copy import ROOT, copier, git, released


def main(services: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        template = released(here / "bulwark", ROOT)
        for number in range(services + 1):
            service = here / f"service-{number}"
            copier("copy", str(template), str(service))
            git(service, "init", "-q")
            git(service, "add", "-A")
            git(service, "commit", "-qm", "x")
        with (template / "template/bulwark/web/headers.py").open("a") as file:
            file.write("# harder\n")
        git(template, "commit", "-qam", "x")
        git(template, "tag", "v1.0.1")
        one = copier("update", str(here / f"service-{services}"))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.monotonic()
        names = [str(here / f"service-{number}") for number in range(services)]
        subprocess.run(
            [ROOT / "bin/fleet", *names], check=True, stdout=subprocess.DEVNULL
        )
        wall = time.monotonic() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"one `copier update`   {one:.2f} s CPU")
    print(f"bin/fleet, {services} services {cpu:.1f} s CPU, {wall:.1f} s of the clock")
    print(f"ratio for a service   {cpu / services / one:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
