"""Sets up requests and responses: the order of all checks."""

from collections.abc import Mapping, Sequence

from flask import Flask

from bulwark.observability import request_log
from bulwark.settings import Config
from bulwark.web import (
    access_matrix,
    body_limits,
    brand,
    components,
    cors,
    data_errors,
    errors,
    exceptions,
    form_limits,
    forms,
    headers,
    idempotency,
    input_validation,
    mailbox,
    pages,
    proxy,
    rate_limits,
    rich_text,
    signatures,
    static_files,
)


def init_app(
    app: Flask, config: Config, csp_sources: Mapping[str, Sequence[str]]
) -> None:
    """Check each request, and finish each response.

    The order is that of a request: each check may rely on the earlier ones.
    """
    signatures.init()
    # Each of these wraps the ones before it, so the proxy's headers are read first.
    exceptions.init_app(app)
    request_log.init_app(app)
    proxy.init_app(app, config)
    headers.init_app(app, config, csp_sources)
    errors.init_app(app)
    body_limits.init_app(app)
    input_validation.init_app(app)
    cors.init_app(app, config)
    form_limits.init_app(app)
    data_errors.init_app(app)
    pages.init_app(app)
    brand.init_app(app)
    components.init_app(app)
    forms.init_app(app)
    rich_text.init_app(app)
    mailbox.init_app(app, config)
    static_files.init_app(app)
    rate_limits.init_app(app, config)
    access_matrix.init_app(app)
    idempotency.init_app(app)
