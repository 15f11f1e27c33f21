"""What a server runs: `gunicorn wsgi:app`, `flask --app wsgi`."""

import os
import sys

from app import create_app
from bulwark.access import UndeclaredAccessError
from bulwark.config import ConfigurationError

CANNOT_BOOT = 3  # gunicorn stops on it, and starts a worker anew on any other
if "WERKZEUG_RUN_MAIN" in os.environ:  # bin/dev, whose reloader starts anew on 3
    CANNOT_BOOT = 1

try:
    app = create_app()
except (ConfigurationError, UndeclaredAccessError) as error:
    print(error, file=sys.stderr)  # noqa: T201
    sys.exit(CANNOT_BOOT)
