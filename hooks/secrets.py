"""Makes the secrets of a new service, or those that a new release needs."""

import runpy

# Copier runs this in the service's folder; the service's own script does the work, so
# that whoever skips the hooks gets the same from bin/setup.
runpy.run_path("bin/secrets", run_name="__main__")
