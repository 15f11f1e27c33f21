"""Makes the secrets of a new service, or those that a new release needs."""

import subprocess
import sys

# Copier runs this in the service's folder; the service's own script does the work, so
# that whoever skips the hooks gets the same from bin/setup.
sys.exit(subprocess.run([sys.executable, "-I", "-B", "bin/secrets"]).returncode)
