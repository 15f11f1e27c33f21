"""Who may call the views of Flask-Security."""

from flask import Flask

from bulwark.web import access

PUBLIC = (
    "login",
    "tf_select",
    "two_factor_token_validation",
    "two_factor_rescue",
    "mf_recovery",
    "wan_signin",
    "wan_signin_response",
    "forgot_password",
    "reset_password",
)
SIGNED_IN = ("change_password", "wan_delete")
# Also open to users who must set up a second factor first.
SETUP = (
    "logout",
    "verify",
    "wan_verify",
    "wan_verify_response",
    "two_factor_setup",
    "two_factor_setup_validate",
    "mf_recovery_codes",
    "wan_register",
    "wan_register_response",
)
# Flask-Security requires a recent sign-in here; declared for the access matrix, too.
RECENT = (
    "two_factor_setup",
    "mf_recovery_codes",
    "wan_register",
    "wan_delete",
)


def init_app(app: Flask) -> None:
    """Declare the access to each view."""
    access.declare(app, access.PUBLIC, _endpoints(PUBLIC))
    access.declare(app, access.SIGNED_IN, _endpoints((*SIGNED_IN, *SETUP)))
    for endpoint in _endpoints(SETUP):
        access.while_setting_up(app.view_functions[endpoint])
    for endpoint in _endpoints(RECENT):
        access.recent(app.view_functions[endpoint])


def _endpoints(views: tuple[str, ...]) -> list[str]:
    return [f"security.{view}" for view in views]
