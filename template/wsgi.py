"""What a server runs: `gunicorn wsgi:app`, `flask --app wsgi`."""

import sys

from app import create_app
from bulwark.access import UndeclaredAccessError
from bulwark.config import ConfigurationError

try:
    app = create_app()
except (ConfigurationError, UndeclaredAccessError) as error:
    sys.exit(str(error))
