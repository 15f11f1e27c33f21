"""Email addresses: each has one spelling, so that it can't be used twice."""

import unicodedata
from typing import Any

from email_validator import EmailNotValidError, validate_email
from flask_security import MailUtil
from flask_security.mail_util import EmailValidateException

from bulwark import settings
from bulwark.database.transactions import commit_after_request
from bulwark.mail import send

ADDRESS_LENGTH = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets


class OutboxMailUtil(MailUtil):
    """Passes Flask-Security's emails to `send`, and normalizes addresses."""

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],
        body: str | None,
        html: str | None,
        **context: Any,
    ) -> None:
        """Send one of the emails in `templates/security/email/`."""
        send(subject, str(recipient), body or "")
        commit_after_request()  # a view such as /reset changes nothing else

    def normalize(self, email: str) -> str:
        """Return the only spelling of an address, so that it can't be used twice.

        It is lowercase, with the domain in its ASCII form (`xn--`).
        """
        # One character may expand to eighteen, and each takes time to check.
        if len(unicodedata.normalize("NFKC", email)) > ADDRESS_LENGTH:
            raise EmailValidateException("This email address is too long.")
        try:
            checked = validate_email(
                email,
                check_deliverability=False,
                allow_smtputf8=False,
                test_environment=settings.current().environment != "production",
            )
        except EmailNotValidError as error:
            raise EmailValidateException(str(error)) from error
        return str(checked.ascii_email).lower()

    def validate(self, email: str) -> str:
        """Query no name server: the client would wait for it."""
        return self.normalize(email)
