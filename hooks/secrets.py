"""Makes the secrets of a new service, or new ones that a release needs."""

import runpy

# Copier runs this in the service's folder. It runs the service's own script, which
# bin/setup runs too, for anyone who skips the hooks.
runpy.run_path("bin/secrets", run_name="__main__")
