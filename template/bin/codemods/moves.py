"""What moved since the first services. A release that moves more adds it here.

Services of every age read this table, so nothing is ever removed from it. What the
facade offers, and where a name is defined, `release.py` reads from the release itself.
"""

# Module before -> module now. A name that has left the module is found in its room.
MODULES = {
    "bulwark.access": "bulwark.web.access",
    "bulwark.account": "bulwark.account.activity",
    "bulwark.admin.acts": "bulwark.admin.confirmation",
    "bulwark.admin.people": "bulwark.admin.users",
    "bulwark.assets": "bulwark.web.static_files",
    "bulwark.audit": "bulwark.audit.trail",
    "bulwark.audit_commands": "bulwark.audit.commands",
    "bulwark.backups": "bulwark.ops.backups",
    "bulwark.certificate": "bulwark.ops.dev_certificate",
    "bulwark.commands": "bulwark.ops.prepare",
    "bulwark.config": "bulwark.settings",
    "bulwark.cores": "bulwark.ops.cores",
    "bulwark.data_errors": "bulwark.web.data_errors",
    "bulwark.email_headers": "bulwark.mail.headers",
    "bulwark.environment": "bulwark.settings.fields",
    "bulwark.errors": "bulwark.web.errors",
    "bulwark.events": "bulwark.audit.events",
    "bulwark.exporter": "bulwark.ops.exporter",
    "bulwark.faults": "bulwark.web.exceptions",
    "bulwark.headers": "bulwark.web.headers",
    "bulwark.health": "bulwark.ops.health",
    "bulwark.hosts": "bulwark.settings.hosts",
    "bulwark.identity.addresses": "bulwark.identity.email_changes",
    "bulwark.identity.breached_passwords": (
        "bulwark.identity.security.breached_passwords"
    ),
    "bulwark.identity.common_passwords": "bulwark.identity.security.common_passwords",
    "bulwark.identity.factor_forms": "bulwark.identity.security.factor_forms",
    "bulwark.identity.factors": "bulwark.identity.security.second_factors",
    "bulwark.identity.forms": "bulwark.identity.security.forms",
    "bulwark.identity.guessing": "bulwark.identity.throttling",
    "bulwark.identity.hashing": "bulwark.identity.security.password_hashing",
    "bulwark.identity.notices": "bulwark.identity.notifications",
    "bulwark.identity.passkeys": "bulwark.identity.security.passkeys",
    "bulwark.identity.password_guesses": "bulwark.identity.security.password_guesses",
    "bulwark.identity.passwords": "bulwark.identity.security.password_policy",
    "bulwark.identity.reauthentication": "bulwark.identity.security.reauthentication",
    "bulwark.identity.signals": "bulwark.identity.security.signals",
    "bulwark.inputs": "bulwark.web.input_validation",
    "bulwark.job_rows": "bulwark.jobs.rows",
    "bulwark.lengths": "bulwark.web.form_limits",
    "bulwark.limits": "bulwark.web.rate_limits",
    "bulwark.lines": "bulwark.observability.redaction",
    "bulwark.logging": "bulwark.observability.logging",
    "bulwark.matrix": "bulwark.web.access_matrix",
    "bulwark.metrics": "bulwark.observability.metrics",
    "bulwark.model_changes": "bulwark.database.model_changes",
    "bulwark.old_jobs": "bulwark.jobs.old_rows",
    "bulwark.origins": "bulwark.web.origins",
    "bulwark.outages": "bulwark.database.outages",
    "bulwark.pages": "bulwark.web.pages",
    "bulwark.postgresql_enums": "bulwark.database.postgresql_enums",
    "bulwark.proxy": "bulwark.web.proxy",
    "bulwark.request_log": "bulwark.observability.request_log",
    "bulwark.safety": "bulwark.settings.safety",
    "bulwark.signatures": "bulwark.web.signatures",
    "bulwark.urls": "bulwark.settings.urls",
    "bulwark.watch": "bulwark.ops.status",
}

# Names that were renamed or went to another room.
NAMES = {
    "bulwark.access.of": "bulwark.web.access.declared_for",
    "bulwark.audit.BrokenError": "bulwark.audit.verification.ChainBrokenError",
    "bulwark.audit.forget": "bulwark.audit.pruning.prune_expired",
    "bulwark.audit.rows_of": "bulwark.audit.export.json_rows",
    "bulwark.errors.in_words": "bulwark.web.errors.humanize",
    "bulwark.events.told": "bulwark.audit.events.log_lifecycle",
    "bulwark.events.tell": "bulwark.audit.events.emit",
    "bulwark.health.UnwellError": "bulwark.ops.health.CheckFailedError",
    "bulwark.hosts.LOCAL_HOSTS": "bulwark.network.LOCAL_HOSTS",
    "bulwark.hosts.is_local": "bulwark.network.is_local",
    "bulwark.identity.guessing.take_back": "bulwark.identity.throttling.undo",
    "bulwark.identity.models.ADMINISTRATOR": "bulwark.web.access.ADMINISTRATOR",
    "bulwark.identity.sessions.facts": "bulwark.identity.sessions.to_dict",
    "bulwark.identity.sessions.of": "bulwark.identity.sessions.for_user",
    "bulwark.identity.tokens.of": "bulwark.identity.tokens.for_user",
    "bulwark.jobs.keep": "bulwark.jobs.state.remember",
    "bulwark.jobs.kept": "bulwark.jobs.state.recall",
    "bulwark.jobs.note": "bulwark.jobs.state.remember_time",
    "bulwark.jobs.noted": "bulwark.jobs.state.recall_time",
    "bulwark.jobs.show_sign_of_life": "bulwark.ops.worker.show_sign_of_life",
    "bulwark.limits.take_back": "bulwark.web.attempts.undo",
    "bulwark.logging.SERVES": "bulwark.observability.logging.LONG_RUNNING",
    "bulwark.proxy.network_of": "bulwark.network.network_of",
}

# Function of the facade -> its arguments that were renamed.
ARGUMENTS = {"setting": {"mend": "fix"}}

# Names without a successor, and what to do instead.
GONE = {
    "bulwark.environment.one_of": (
        "write `from decouple import Choices` and `cast=Choices([…])`"
    ),
}

# Templates that were renamed.
TEMPLATES = {
    "bulwark/facts.html": "bulwark/_display.html",
    "bulwark/letter.html": "bulwark/message.html",
}
# Template as it is called now -> its macros that were renamed.
MACROS = {
    "bulwark/_display.html": {"happening": "event_row"},
    "bulwark/forms.html": {"press": "button_form"},
}
# Template as it is called now -> its blocks that were renamed.
BLOCKS = {"bulwark/admin/layout.html": {"room": "admin_content"}}
# Attributes of what the base passes to its templates.
ATTRIBUTES = {"told": "text"}
