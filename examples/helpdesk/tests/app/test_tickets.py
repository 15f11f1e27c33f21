"""Tickets with formatted text, attachments and comments."""

import io

from flask import Flask

from tests.app.helpers import add_ticket
from tests.conftest import RunJobs, Visitor

TEN_MEGABYTES = b"a line of a log\n" * 625_000
TICKET = {"subject": "No paper", "text": "The **printer** is <b>empty</b>."}


def write(customer: Visitor, *files: tuple[io.BytesIO, str]):
    return customer.submit("/tickets/new", {**TICKET, "attachments": list(files)})


def test_a_ticket_has_formatted_text(customer: Visitor):
    page = customer.get(write(customer).location).text
    assert "<strong>printer</strong>" in page
    assert "&lt;b&gt;empty" in page


def test_a_form_with_problems_keeps_what_was_entered(customer: Visitor):
    page = customer.submit("/tickets/new", TICKET | {"subject": ""}).text
    assert "Enter a subject." in page
    assert "The **printer**" in page


def test_an_attachment_has_up_to_10_mb(customer: Visitor, stranger: Visitor):
    path = write(customer, (io.BytesIO(TEN_MEGABYTES), "printer.log")).location
    assert "printer.log" in customer.get(path).text
    file = "/tickets/attachments/1"
    with customer.get(file) as response:
        assert response.data == TEN_MEGABYTES
        assert response.headers["Content-Disposition"].startswith("attachment")
    assert stranger.get(file).status_code == 404


def test_a_larger_attachment_and_a_program_are_refused(customer: Visitor):
    large = write(customer, (io.BytesIO(TEN_MEGABYTES + b"\n"), "printer.log"))
    assert "printer.log is too large" in large.text
    program = write(customer, (io.BytesIO(b"MZ"), "printer.exe"))
    assert "printer.exe" in program.text
    assert "There are no tickets yet." in customer.get("/tickets/").text


def test_another_organization_finds_nothing(
    app: Flask, customer: Visitor, stranger: Visitor, agent: Visitor
):
    path = f"/tickets/{add_ticket(app, 'zoe@acme.example')}"
    for method, address in (
        ("GET", path),
        ("POST", path),
        ("POST", f"{path}/status"),
    ):
        form = {"csrf_token": stranger.csrf_token("/tickets/new"), "text": "Hello"}
        headers = {"Referer": f"https://localhost{path}"}
        answer = stranger.client.open(
            address, method=method, data=form, headers=headers
        )
        assert answer.status_code == 404
    assert "No paper" not in stranger.get("/tickets/").text
    for allowed in (customer, agent):
        assert "No paper" in allowed.get("/tickets/").text
        assert allowed.get(path).status_code == 200


def test_a_comment_is_emailed_to_those_who_wrote(
    app: Flask,
    customer: Visitor,
    stranger: Visitor,
    agent: Visitor,
    run_jobs: RunJobs,
):
    path = f"/tickets/{add_ticket(app, 'zoe@acme.example')}"
    agent.submit(path, {"text": "Which [printer](/printers)?"})
    run_jobs()
    customer.submit(path, {"text": "The blue one."})
    run_jobs()
    first, second = customer.letters()
    assert [first["To"], second["To"]] == ["zoe@acme.example", "ada@help.example"]
    text = first.get_body(("plain",))
    assert text is not None
    assert "Which [printer](/printers)?" in text.get_content()
    assert f"https://localhost{path}" in text.get_content()


def test_the_list_is_filtered(app: Flask, customer: Visitor):
    closed = add_ticket(app, "zoe@acme.example", "No toner")
    add_ticket(app, "zoe@acme.example")
    path = f"/tickets/{closed}"
    token = {"csrf_token": customer.csrf_token(path)}
    headers = {"Referer": f"https://localhost{path}"}
    customer.client.post(f"{path}/status", data=token, headers=headers)
    page = customer.get("/tickets/?status=closed").text
    assert "No toner" in page
    assert "No paper" not in page
    assert "No paper" in customer.get("/tickets/?subject=PAPER").text
    assert "No matching tickets." in customer.get("/tickets/?subject=x%25").text


def test_a_user_without_an_organization_writes_no_tickets(agent: Visitor):
    answer = agent.get("/tickets/new")
    assert answer.status_code == 403
    assert "An agent can add you." in answer.text
