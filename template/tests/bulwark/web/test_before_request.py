"""The functions before a request: in their order, until one responds."""

from flask import Flask, g

from bulwark.web import before_request


def test_functions_run_in_their_order_until_one_responds():
    app, called = Flask("joined"), []

    def respond() -> str:
        called.append("second")
        return "stopped"

    app.before_request(lambda: called.append("first"))
    app.before_request(respond)
    app.before_request(lambda: called.append("never"))
    before_request.join(app)
    assert app.test_client().get("/").text == "stopped"
    assert called == ["first", "second"]


def test_a_function_registered_later_runs_after_them():
    app = Flask("joined")
    app.before_request(lambda: setattr(g, "step", 1))
    before_request.join(app)
    app.before_request(lambda: f"after step {g.step}")
    assert app.test_client().get("/").text == "after step 1"
