"""What the tests of the audit trail share."""

import pytest
from sqlalchemy import text

from bulwark.audit import trail, verification
from bulwark.database import db

ROWS = 6  # of the fixture `recorded`
NEVER = {"fault": "", "head": "", "at": "2026-01-01T00:00:00+00:00"}


def tamper(*statements: str) -> None:
    """Change the tables as somebody who may do anything in the database."""
    with trail.unlocked():
        for statement in statements:
            db.session.execute(text(statement))
    db.session.commit()
    db.session.expire_all()


def fault(**options: object) -> str:
    """Return what is found."""
    with pytest.raises(verification.ChainBrokenError) as raised:
        verification.verify(**options)  # type: ignore[arg-type]
    return str(raised.value)
