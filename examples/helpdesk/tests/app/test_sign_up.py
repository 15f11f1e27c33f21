"""Accounts are by invitation, with a name and terms of use."""

from flask import Flask

from tests.conftest import GOOD_PASSWORD, Visitor


def test_an_invited_customer_enters_a_name_and_accepts_the_terms(
    app: Flask, visitor: Visitor
):
    invite = ["accounts", "invite", "zoe@acme.example"]
    output = app.test_cli_runner().invoke(args=invite).output
    link = output.strip().split("https://localhost")[-1]
    form = {"password": GOOD_PASSWORD, "accept_terms": "2026-11"}
    assert "Enter your name." in visitor.submit(link, form).text
    visitor.submit(link, form | {"display_name": "Zoe"})
    visitor.sign_in("zoe@acme.example")
    assert "Zoe" in visitor.get("/account").text
    assert visitor.get("/tickets/").status_code == 200


def test_nobody_signs_up_without_an_invitation(visitor: Visitor):
    assert "by invitation" in visitor.get("/register").text
