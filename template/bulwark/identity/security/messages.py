"""Flask-Security's messages, by its names.

Responses to visitors are the same whether an account exists or not.
"""

SIGN_IN_AND_PASSWORDS = {
    "ANONYMOUS_USER_REQUIRED": ("You are already signed in.", "info"),
    "API_ERROR": ("This is no longer valid. Start over here.", "error"),
    "EMAIL_NOT_PROVIDED": ("Enter your email address.", "error"),
    "GENERIC_AUTHN_FAILED": (
        "Incorrect email address or password.",
        "error",
    ),
    "INVALID_EMAIL_ADDRESS": (
        "Enter an email address such as name@example.com.",
        "error",
    ),
    "INVALID_PASSWORD": ("Incorrect password.", "error"),
    "INVALID_REDIRECT": (
        "The link that you followed redirects to another site. We don't allow"
        " this, so you stay here.",
        "error",
    ),
    "INVALID_RESET_PASSWORD_TOKEN": (
        "The link is incomplete, or was already used. Request a new one.",
        "error",
    ),
    "PASSWORD_CHANGE": (
        "Your password was changed. You are signed out everywhere else.",
        "success",
    ),
    "PASSWORD_IS_THE_SAME": ("This is already your password.", "error"),
    "PASSWORD_NOT_PROVIDED": ("Enter a password.", "error"),
    "PASSWORD_RESET_EXPIRED": (
        "The link has expired: it works for %(within)s. Request a new one.",
        "error",
    ),
    "PASSWORD_RESET_NO_LOGIN": (
        "Your new password is set. Sign in with it.",
        "success",
    ),
    "PASSWORD_RESET_REQUEST": (
        "If %(email)s has an account, an email with a link is on its way. If it"
        " doesn't arrive, check your spam folder and the spelling of the address.",
        "success",
    ),
    "REAUTHENTICATION_REQUIRED": (
        "Please confirm your identity to continue.",
        "info",
    ),
    "REAUTHENTICATION_SUCCESSFUL": ("Thank you. You can continue.", "success"),
    "UNAUTHENTICATED": ("Please sign in first.", "info"),
    "UNAUTHORIZED": ("You don't have permission to do this.", "error"),
}

CODES = {
    "CODE_HAS_BEEN_SENT": ("We sent you an email with a code.", "info"),
    "FAILED_TO_SEND_CODE": (
        "We couldn't send the email with the code. Try again in a minute.",
        "error",
    ),
    "INVALID_INPUT": ("Don't use characters such as < and >.", "error"),
    "INVALID_INPUT_LENGTH": ("Use %(length)s characters at most.", "error"),
    "INVALID_RECOVERY_CODE": (
        "This is not one of your recovery codes, or it was already used.",
        "error",
    ),
    "NO_RECOVERY_CODES_SETUP": ("You have no recovery codes yet.", "info"),
    "TWO_FACTOR_CHANGE_METHOD_SUCCESSFUL": (
        "Codes are set up. From now on, you need a code to sign in.",
        "success",
    ),
    "TWO_FACTOR_DISABLED": ("Your authenticator app was removed.", "success"),
    "TWO_FACTOR_INVALID_TOKEN": (
        "This code is incorrect, expired or already used. Wait for the next code,"
        " then enter that one.",
        "error",
    ),
    "TWO_FACTOR_LOGIN_SUCCESSFUL": ("You are signed in.", "success"),
    "TWO_FACTOR_METHOD_NOT_AVAILABLE": (
        "This option is not available. If your account requires a second factor,"
        " add a passkey before you remove the app.",
        "error",
    ),
    "TWO_FACTOR_PERMISSION_DENIED": (
        "This step has expired. Please sign in again.",
        "error",
    ),
    "TWO_FACTOR_SETUP_EXPIRED": (
        "This took longer than %(within)s. Please start over.",
        "error",
    ),
}

PASSKEYS = {
    "WEBAUTHN_CREDENTIAL_DELETED": (
        "The passkey “%(name)s” was removed. Delete it on your device too, so that"
        " it is no longer offered.",
        "success",
    ),
    "WEBAUTHN_CREDENTIAL_ID_INUSE": ("This passkey was already added.", "error"),
    "WEBAUTHN_EXPIRED": (
        "This took longer than %(within)s. Please try again.",
        "error",
    ),
    "WEBAUTHN_MISMATCH_USER_HANDLE": (
        "This passkey belongs to another account.",
        "error",
    ),
    "WEBAUTHN_NAME_DISALLOWED_CHARACTERS": (
        "Use letters, digits, spaces and punctuation.",
        "error",
    ),
    "WEBAUTHN_NAME_INUSE": (
        "You already have a passkey called “%(name)s”.",
        "error",
    ),
    "WEBAUTHN_NAME_NOT_FOUND": ("You have no passkey called “%(name)s”.", "error"),
    "WEBAUTHN_NAME_REQUIRED": ("Enter a name.", "error"),
    "WEBAUTHN_NO_VERIFY": (
        "We couldn't verify the passkey. Please try again.",
        "error",
    ),
    "WEBAUTHN_REGISTER_SUCCESSFUL": (
        "The passkey “%(name)s” was added. You can sign in with it alone.",
        "success",
    ),
    "WEBAUTHN_UNKNOWN_CREDENTIAL_ID": (
        "This passkey is not registered here. It may have been removed. Sign in"
        " another way.",
        "error",
    ),
}

MESSAGES = {
    f"SECURITY_MSG_{name}": message
    for name, message in (SIGN_IN_AND_PASSWORDS | CODES | PASSKEYS).items()
}
