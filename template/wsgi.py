"""The WSGI app: `gunicorn wsgi:app`, `flask --app wsgi`."""

import gc
import os
import sys

# What is loaded here stays until the process ends. Searching it for garbage takes 40 %
# of a short command's time, and unshares the memory of gunicorn's workers.
gc.disable()

from app import create_app  # noqa: E402
from bulwark.settings import ConfigurationError  # noqa: E402
from bulwark.web.access import UndeclaredAccessError  # noqa: E402
from bulwark.web.overrides import UnknownTemplateError  # noqa: E402

CANNOT_BOOT = 3  # gunicorn stops on it, and restarts a worker on any other
if "WERKZEUG_RUN_MAIN" in os.environ:  # bin/dev, whose reloader restarts on 3
    CANNOT_BOOT = 1

try:
    app = create_app()
except (ConfigurationError, UndeclaredAccessError, UnknownTemplateError) as error:
    print(error, file=sys.stderr)  # noqa: T201
    sys.exit(CANNOT_BOOT)

gc.freeze()
gc.enable()
