"""The questions: six at most, each answer works throughout or is refused at once."""

import functools
import os
import pty
import re
import select
import subprocess
import time
import tomllib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import run_copy

from tests.conftest import QUESTIONS, Make
from tests.support.quick_copier import IN_PROCESSES

ASKED = [
    name
    for name, question in QUESTIONS.items()
    if question.get("when", True) and question.get("ask", True)
]

# No answer changes a file in these folders: see test_copy.py.
PLAIN = ["/app", "/bulwark", "/tests"]

# A name and the short name that it leads to.
NAMES = {
    'Café "Zoë" & Sons — billing': "cafe-zoe-sons-billing",
    "O'Brien’s \\ back\\slash": "obriens-back-slash",
    "x" * 80: "x" * 31,
    "7even 11": "service-7even-11",
    "Привет, мир": "service",
    "日本語 🎉": "service",
    "🎉": "service",
    "nginx": "service-nginx",
    "Systemd Network": "service-systemd-network",
    "null": "null",
    "yes": "yes",
    "3.14": "service-3-14",
    "{{ 7*7 }} {% raw %} {# #}": "service-7-7-raw",
    "$HOME `id` $(id) %n %% !x": "home-id-id-n-x",
    "<script>alert(1)</script>": "script-alert-1-script",
    "# : - [a] {b} |>": "a-b",
    "'''\"\"\"": "service",
    "X": "service-x",
    "Łódź ÅÄÖ Straße Œuvre": "lodz-aao-strasse-oeuvre",
    "Cafe\u0301": "cafe",
    "İstanbul": "istanbul",
    "-rf --help": "rf-help",
}
BAD_NAMES = [
    *("", " ", " lead", "trail ", "x" * 81, "x" * 200, "two\nlines", "tab\there"),
    *("nul\0", "bell\a", "del\x7f", "\x85", "\u2028", "zero\u200bwidth", "bidi\u202e"),
    *("no\xa0break", "\ud800", "\udcff"),
]
DOMAINS = [
    *("example.com", "a-b.example.co.uk", "xn--mnchen-3ya.de", "example.xn--p1ai"),
    *(f"{'a' * 63}.example.com", "1.2.3.example", f"{'a1.' * 64}{'b' * 8}", "a.museum"),
]
# A domain that is refused, and the one that the message offers instead.
BAD_DOMAINS = {
    "Shop.Example.COM": "shop.example.com",
    "shop.example.com.": "shop.example.com",
    "shop.example.com:8443": "shop.example.com",
    "https://shop.example.com/path?x#y": "shop.example.com",
    " shop.example.com\n": "shop.example.com",
    "münchen.de": "its ASCII form",
} | dict.fromkeys(
    [
        *("", ".", "localhost", "*.example.com", "10.0.0.1", "::1", "[::1]", "a_b.com"),
        *("-a.com", "a-.com", "a..com", ".com", f"{'a' * 64}.com", "a.b c.com", "a.1"),
        *("a.com;id", "a.com\nb.com", "$(id).com", f"{'a1.' * 70}com", "{{ 1 }}.com"),
    ]
)
EMAILS = [
    *("ops@example.com", "first.last+tag@mail.example.co.uk", "A_b-1@Example.COM"),
    *("1@xn--mnchen-3ya.de", f"{'a' * 64}@example.com"),
]
BAD_EMAILS = [
    *("", "ops", "ops@", "@example.com", "ops@localhost", "ops@10.0.0.1", "a@b@c.com"),
    *("Zoë <zoe@example.com>", "zoë@example.com", "ops@münchen.de", "o'b@example.com"),
    *(".a@example.com", "a.@example.com", "a..b@example.com", "-a@example.com"),
    *("a b@example.com", "a@example.com\n", "a@example.com,b@example.com", "a@example"),
    *(
        f"{'a' * 65}@example.com",
        "%n@example.com",
        "`id`@example.com",
        "a@example.com.",
    ),
]
SLUGS = ["ab", "a1", "my-service", "a" * 31]
BAD_SLUGS = [
    *("", "a", "A", "1a", "-a", "a-", "a_b", "a b", "a" * 32, "é", "ab\n", "../ab"),
    *("root", "nginx", "postgres", "www-data", "systemd-network"),
]


def refusal(template: Path, folder: Path, answers: dict[str, object]) -> str:
    """Make a service with answers that must be refused; return the message."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        run_copy(str(template), folder, answers, defaults=True, unsafe=True, quiet=True)
    assert not folder.exists()
    return str(caught.value)


def check_every_file(service: Path) -> dict[str, Any]:
    """Parse all files whose format is known; return the answers in service.toml."""
    for file in service.rglob("*"):
        if file.is_file():
            check_file(file.suffix, file.read_bytes())
    return tomllib.loads((service / "service.toml").read_text())


@functools.cache  # most files are the same whatever the answers
def check_file(suffix: str, content: bytes) -> None:
    if suffix in (".yml", ".yaml"):
        list(yaml.safe_load_all(content))
    elif suffix == ".toml":
        tomllib.loads(content.decode())
    elif content.startswith(b"#!/bin/"):
        subprocess.run(["bash", "-n"], input=content, check=True)


def test_there_are_at_most_six_questions() -> None:
    assert len(ASKED) <= 6


@pytest.mark.parametrize("name", ASKED)
def test_each_question_helps_has_a_default_and_checks_its_answer(name: str) -> None:
    question = QUESTIONS[name]
    assert question["help"].endswith((".", "?"))
    assert "default" in question
    assert "validator" in question or "choices" in question


@pytest.mark.parametrize(("name", "slug"), NAMES.items())
def test_a_messy_name_survives_everywhere(make: Make, name: str, slug: str) -> None:
    service = make(exclude=PLAIN, project_name=name)
    answers = check_every_file(service)
    assert answers["name"] == name
    assert answers["slug"] == slug
    assert answers["domain"] == f"{slug}.example.com"
    kept = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert kept["project_name"] == name


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        *(("project_name", name, "one line of 1 to 80 visible") for name in BAD_NAMES),
        *(("admin_email", email, "like ops@example.com") for email in BAD_EMAILS),
        *(("project_slug", slug, "like") for slug in BAD_SLUGS),
    ],
)
def test_an_answer_that_cannot_work_is_refused(
    template: Path, tmp_path: Path, question: str, answer: str, reason: str
) -> None:
    assert reason in refusal(template, tmp_path / "service", {question: answer})


@pytest.mark.parametrize(
    ("domain", "email", "slug"), list(zip_longest(DOMAINS, EMAILS, SLUGS))
)
def test_a_domain_an_address_and_a_short_name_survive_everywhere(
    make: Make, domain: str, email: str | None, slug: str | None
) -> None:
    given = {"domain": domain, "admin_email": email, "project_slug": slug}
    given = {name: answer for name, answer in given.items() if answer}
    service = make(exclude=PLAIN, **given)
    answers = check_every_file(service)
    assert answers["domain"] == domain
    assert answers["admin_email"] == (email or f"admin@{domain}")
    assert answers["slug"] == (slug or "my-service")
    assert answers["admin_email"] in (service / "SECURITY.md").read_text()


@pytest.mark.parametrize(("domain", "mended"), BAD_DOMAINS.items())
def test_a_domain_that_cannot_work_is_refused_and_mended(
    template: Path, tmp_path: Path, domain: str, mended: str | None
) -> None:
    output = refusal(template, tmp_path / "service", {"domain": domain})
    assert "Enter a domain like shop.example.com" in output
    if mended:
        assert mended in output.partition("final dot.")[2]


def test_more_names_may_lead_to_the_domain(make: Make) -> None:
    names = ["www.shop.example", "xn--mnchen-3ya.de"]
    service = make(exclude=PLAIN, domain="shop.example", aliases=names)
    answers = check_every_file(service)
    assert answers["edge"] == {"proxy": "nginx", "tls": "intermediate"} | {
        "aliases": names
    }


@pytest.mark.parametrize(
    "aliases",
    [
        *("www.shop.example", {"www.shop.example": 1}, 7, [7], [["a.example"]]),
        *(["*.shop.example"], ["shop.example"], ["www.shop.example; id"], [""]),
        ["www.shop.example", "www.shop.example"],
    ],
)
def test_names_that_cannot_lead_to_the_domain_are_refused(
    template: Path, tmp_path: Path, aliases: object
) -> None:
    answers = {"domain": "shop.example", "aliases": aliases}
    assert "www.shop.example" in refusal(template, tmp_path / "service", answers)


@pytest.mark.parametrize(
    "answer",
    [
        *({"database": "mysql"}, {"ci": "jenkins"}, {"deploy": ["heroku"]}),
        *({"proxy": "caddy"}, {"tls": "old"}),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(
    template: Path, tmp_path: Path, answer: dict[str, object]
) -> None:
    output = refusal(template, tmp_path / "service", answer)
    assert re.search(r"is not in \['\w+', '\w+'", output)


def test_a_refusal_on_the_command_line_ends_with_the_message(
    template: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["copier", "copy", "--trust", "--defaults", "-d", "domain=X", template, "made"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Enter a domain like shop.example.com" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_enter_on_every_question_makes_a_service(
    template: Path, tmp_path: Path
) -> None:
    """At a real terminal: six questions, six times Enter."""
    person, terminal = pty.openpty()
    command = ["copier", "copy", "--trust", str(template), "service"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | IN_PROCESSES,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output, asked, end = "", 0, time.monotonic() + 240
    while process.poll() is None and time.monotonic() < end:
        if select.select([person], [], [], 0.1)[0]:
            try:
                output += os.read(person, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        elif asked < len(ASKED) and QUESTIONS[ASKED[asked]]["help"][:20] in output:
            os.write(person, b"\r")
            asked += 1
    assert process.wait(240) == 0, output
    os.close(person)
    assert asked == len(ASKED), output
    assert (tmp_path / "service/service.toml").exists()
