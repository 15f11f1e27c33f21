"""Tests that a service gets with the examples of docs/extend.md."""

COMPANY_OF_THE_USER = """
from sqlalchemy import select

from app.models import Company, User
from bulwark import db
from tests.conftest import add_person


def test_the_user_has_a_phone_and_a_company(app):
    add_person(app, "zoe@example.org")
    with app.app_context():
        zoe = db.session.scalar(select(User))
        zoe.phone, zoe.company = "+49 30 123", Company(name="Acme")
        db.session.commit()
    with app.app_context():
        acme = db.session.scalar(select(Company))
        assert [(p.email, p.phone) for p in acme.people] == [
            ("zoe@example.org", "+49 30 123")
        ]
"""


INVOICE = """
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.models import Invoice, User
from bulwark import db
from tests.conftest import add_person


def add_invoice(app, number, email):
    with app.app_context():
        customer = db.session.scalar(select(User).where(User.email == email))
        db.session.add(Invoice(number=number, cents=4250, customer=customer))
        db.session.commit()


def test_an_invoice_has_a_customer_who_exists(app, person):
    add_invoice(app, "1", person)
    with app.app_context():
        invoice = db.session.scalar(select(Invoice))
        assert (invoice.cents, invoice.customer.email) == (4250, person)
        assert invoice.created_at.tzinfo
        db.session.add(Invoice(number="2", cents=1, customer_id=4711))
        with pytest.raises(IntegrityError):
            db.session.commit()
        db.session.rollback()
"""


PAGES_OF_INVOICES = """
def test_customers_see_their_own_invoices_only(app, visitor, other_visitor, person):
    other = add_person(app, "ada@example.org")
    add_invoice(app, "2026-1", person)
    visitor.sign_in(person)
    other_visitor.sign_in(other)
    assert "2026-1" in visitor.get("/invoices/").text
    assert "42.50" in visitor.get("/invoices/2026-1").text
    assert 'href="/invoices/"' in visitor.get("/").text
    assert "2026-1" not in other_visitor.get("/invoices/").text
    assert other_visitor.get("/invoices/2026-1").status_code == 404
"""


BOOKS_FOR_BOOKKEEPERS = """
def test_the_books_open_for_bookkeepers_only(app, visitor, other_visitor, person):
    bookkeeper = add_person(app, "ada@example.org", "bookkeeper")
    add_invoice(app, "2026-1", person)
    assert visitor.get("/books").location.startswith("/login")
    visitor.sign_in(person)
    assert visitor.get("/books").status_code == 403
    other_visitor.sign_in(bookkeeper)
    assert "2026-1: zoe@example.org" in other_visitor.get("/books").text
"""


IMAGES_FROM_ELSEWHERE = """
def test_the_policy_holds_the_source(visitor):
    policy = visitor.get("/").headers["Content-Security-Policy"]
    (images,) = [d for d in policy.split("; ") if d.startswith("img-src ")]
    assert "https://images.example.com" in images.split()
"""


STYLE_OF_AMOUNTS = """
def test_every_page_loads_the_style(visitor):
    assert 'rel="stylesheet" href="/static/app.css?v=' in visitor.get("/").text
    with visitor.get("/static/app.css") as style:
        assert style.mimetype == "text/css"
        assert ".amount" in style.text
"""


EXPENSES = """
from app.models import Expense
from bulwark import db


def test_people_claim_what_they_spent(app, visitor, person):
    visitor.sign_in(person)
    visitor.submit("/expenses/", {"title": "Train", "cents": "4250"})
    bus = {"title": "Bus", "cents": 320}
    number = visitor.send("/expenses/json", bus).get_json()["id"]
    page = visitor.get("/expenses/").text
    assert "Train" in page
    assert "Bus" in page
    for wrong in ([bus], bus | {"title": 5}, bus | {"cents": 10**20}, {"cents": 320}):
        assert visitor.send("/expenses/json", wrong).status_code == 400
    path = f"/expenses/{number}/receipt"
    headers = {
        "X-CSRFToken": visitor.csrf_token("/expenses/"),
        "Referer": "https://localhost/expenses/",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    start = b'--x\\r\\nContent-Disposition: form-data; name="receipt"; filename="a"'
    body = start + b"\\r\\n\\r\\n" + b"x" * 2_000_000 + b"\\r\\n--x--\\r\\n"
    assert visitor.client.post(path, data=body, headers=headers).status_code == 302
    with app.app_context():
        stored = db.session.get(Expense, number)
        assert len(stored.receipt) == 2_000_000
    unknown = path.replace(str(number), str(10**20))
    assert visitor.client.post(unknown, data=body, headers=headers).status_code == 404
"""


REPORT = """
from bulwark import queue


def test_a_user_gets_a_report_by_email(app, visitor, person):
    visitor.sign_in(person)
    headers = {
        "X-CSRFToken": visitor.csrf_token("/account"),
        "Referer": "https://localhost/account",
    }
    answers = [visitor.client.post("/reports/", headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [302] * 5 + [429]
    for _ in range(5):
        queue.execute(queue.dequeue())
    letters = [m for m in visitor.letters() if m["Subject"] == "Your report"]
    assert [letter["To"] for letter in letters] == [person] * 5
    assert person in letters[0].get_body(("plain",)).get_content()
"""


PROOFS = (
    COMPANY_OF_THE_USER,
    INVOICE,
    PAGES_OF_INVOICES,
    BOOKS_FOR_BOOKKEEPERS,
    IMAGES_FROM_ELSEWHERE,
    STYLE_OF_AMOUNTS,
    EXPENSES,
    REPORT,
)
