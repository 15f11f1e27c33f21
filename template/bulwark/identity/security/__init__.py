"""Flask-Security, adapted: its forms, second factors, passkeys and passwords."""
