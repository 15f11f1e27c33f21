"""A JSON API with typed requests and responses, described in OpenAPI.

It requires pydantic, which services without an API neither install nor import:
`bulwark` imports this room when `app/` uses a name from it.
"""

from bulwark.api.blueprint import Api
from bulwark.api.etags import check_match
from bulwark.api.pagination import Page, paginate

__all__ = ["Api", "Page", "check_match", "paginate"]
