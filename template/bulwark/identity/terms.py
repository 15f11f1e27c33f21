"""The terms that users accept, with the version and the time."""

from typing import Any

from flask import url_for
from wtforms import BooleanField
from wtforms.validators import ValidationError

from bulwark.audit import events
from bulwark.database import utcnow
from bulwark.identity import sign_up_options
from bulwark.identity.models import BaseUser
from bulwark.identity.sign_up_options import Terms


class TermsField(BooleanField):  # type: ignore[misc]
    """A checkbox whose value is the version, so that nobody accepts one unseen."""

    def __init__(self, terms: Terms, **options: Any) -> None:
        super().__init__(
            "I accept the terms of use", render_kw={"required": True}, **options
        )
        self.terms = terms

    @property
    def link(self) -> str:
        """The page with the terms."""
        return link_to(self.terms)

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Accept the version that the page showed, if it is still the current one."""
        self.data = valuelist[:1] == [self.terms.version]

    def pre_validate(self, form: Any) -> None:
        """Require the acceptance."""
        if not self.data:
            raise ValidationError("Read the terms of use and accept them to continue.")

    def _value(self) -> str:
        return self.terms.version


def link_to(terms: Terms) -> str:
    """Return the URL of the terms."""
    return terms.page if terms.page.startswith("https://") else url_for(terms.page)


def accept(user: BaseUser) -> None:
    """Store and record that a user accepted the current terms, if there are any."""
    if terms := sign_up_options.current().terms:
        user.accepted_terms_version = terms.version
        user.accepted_terms_at = utcnow()
        events.record("user_terms_accepted", user, actor=user, terms=terms.version)
