"""CPU of `copier copy`: this template against one of a single file. Not a test; run it:

.venv/bin/python -m tests.benchmarks.copy [rounds]
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def released(folder: Path, work_tree: Path) -> Path:
    """Return a git template that holds what git would take of a folder."""
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, f"--work-tree={work_tree}", "add", "-A")
    git(folder, "commit", "-qm", "x")
    git(folder, "tag", "v1.0.0")
    git(folder, "reset", "-q", "--hard")
    return folder


def copier(command: str, *arguments: str) -> float:
    """Run Copier once, as people do; return the CPU seconds that it took in all."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python = [sys.executable, "-W", "ignore", "-m", "copier"]
    options = ["--quiet", "--defaults", "--trust"]
    subprocess.run(
        [*python, command, *options, *arguments], check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "one").mkdir()
        (here / "one/copier.yml").write_text("name: x\n_subdirectory: template\n")
        (here / "one/template").mkdir()
        (here / "one/template/file.txt.jinja").write_text("{{ name }}\n")
        templates = {
            "one file": released(here / "single", here / "one"),
            "Bulwark": released(here / "bulwark", ROOT),
        }
        seconds: dict[str, list[float]] = {name: [] for name in templates}
        for number in range(rounds):  # in turn, so that both meet the same machine
            for name, template in templates.items():
                service = here / f"{number} {name}"
                seconds[name].append(copier("copy", str(template), str(service)))
        files = sum(file.is_file() for file in (here / "0 Bulwark").rglob("*"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<9} {median:.2f} s CPU, median of {rounds}")
    ratio = medians["Bulwark"] / medians["one file"]
    print(f"ratio     {ratio:.2f} ({files} files made)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
