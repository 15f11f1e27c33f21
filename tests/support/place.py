"""A template with a release that a service does not have yet, and bin/update there."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import commit, git, move, release
from tests.support.copies import files
from tests.support.quick_copier import IN_PROCESSES

NEWS = "v9999.1.0"
FIX = "# a fix\n"


class Place:
    """A template with a release that a service does not have yet."""

    def __init__(self, template: Path, service: Path) -> None:
        self.template, self.service = template, service

    @classmethod
    def copied(cls, original: tuple[Path, Path], folder: Path) -> "Place":
        """Return a copy that a test may change."""
        template, service = (
            Path(shutil.copytree(part, folder / part.name, symlinks=True))
            for part in original
        )
        place = cls(template, service)
        place.move(str(template))
        return place

    def update(
        self, *options: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.service / "bin/update", *options],
            env=os.environ | IN_PROCESSES | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    def refusal(self, *options: str, **environment: str) -> str:
        """Update in vain; return the reason."""
        before = self.state()
        done = self.update(*options, **environment)
        assert done.returncode == 2, done.stdout
        assert self.state() == before
        return done.stderr

    def state(self) -> dict[str, object]:
        """Return all that an update could change."""
        content = {
            path: (path.read_bytes(), path.stat().st_mode)
            for path in files(self.service)
        }
        folders = {path for path in self.service.iterdir() if path.is_dir()}
        questions = ("status --porcelain", "rev-parse HEAD", "branch", "stash list")
        output = [git(self.service, *question.split()) for question in questions]
        return {"files": content, "folders": folders, "git": output}

    def has_news(self) -> bool:
        return (self.service / "bulwark/web/headers.py").read_text().endswith(FIX)

    def publish(self, version: str, line: str, instead: str) -> None:
        """Release a template whose copier.yml has something else in place of a line."""
        questions = self.template / "copier.yml"
        text = questions.read_text()
        assert line in text
        questions.write_text(text.replace(line, instead, 1))
        release(self.template, version)

    def move(self, address: str) -> None:
        """Have the service look for its template somewhere else."""
        move(self.service, address)
        commit(self.service)

    def join_a_project(self) -> Path:
        """Make the service a folder of a repository; return that."""
        project = self.service.parent / "project"
        (project / "other").mkdir(parents=True)
        (project / "other/file").write_text("another's\n")
        shutil.rmtree(self.service / ".git")
        self.service = self.service.rename(project / "shop")
        commit(project)
        return project
