"""What is found in a file: what can be rewritten, and what someone has to decide."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, order=True)
class Finding:
    """A line that needs a change."""

    line: int
    text: str
    by_hand: bool = False


@dataclass(frozen=True, order=True)
class Edit:
    """Bytes of a file, and what replaces them."""

    start: int
    end: int
    new: str


@dataclass
class Changes:
    """Everything that concerns one file."""

    path: Path
    source: bytes
    findings: set[Finding] = field(default_factory=set)
    edits: set[Edit] = field(default_factory=set)
    rename_to: Path | None = None

    def line(self, offset: int) -> int:
        """Return the number of the line that contains a byte."""
        return self.source.count(b"\n", 0, offset) + 1

    def note(self, offset: int, text: str, *, by_hand: bool = False) -> None:
        """Add a finding at a byte."""
        self.findings.add(Finding(self.line(offset), text, by_hand))

    def replace(self, start: int, end: int, new: str) -> None:
        """Replace bytes."""
        if self.source[start:end] != new.encode():
            self.edits.add(Edit(start, end, new))

    def result(self) -> bytes:
        """Return the file with all edits, in the line endings that it has."""
        text = self.source
        newline = b"\r\n" if b"\r\n" in text else b"\n"
        before = len(text)
        for edit in sorted(self.edits, reverse=True):
            if edit.end > before:
                raise ValueError(f"{self.path}: two changes of the same place")
            before = edit.start
            new = edit.new.encode().replace(b"\n", newline)
            text = text[: edit.start] + new + text[edit.end :]
        return text
