"""What a view embeds from other sites, declared so that a reviewer sees it.

@blueprint.get("/tour")
@public
@embeds("https://www.youtube-nocookie.com")
def tour(): ...

`headers` changes the headers of these views, and only as far as they need it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

# What a page may load from an origin, and the CSP directive that allows it.
DIRECTIVES = {
    "frames": "frame-src",
    "scripts": "script-src",
    "styles": "style-src",
    "images": "img-src",
    "fonts": "font-src",
    "media": "media-src",
    "connect": "connect-src",
    "forms": "form-action",
}
# Features of browsers that no page may use unless its view declares them. Others, such
# as fullscreen, are off in frames of other sites unless the frame's `allow` names them.
FEATURES = (
    "accelerometer",
    "browsing-topics",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "usb",
)
ORIGIN = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:\d{1,5})?")
SOCKET = re.compile(ORIGIN.pattern.replace("https", "(https|wss)", 1))
# The names that the Trusted Types specification allows.
POLICY = re.compile(r"[A-Za-z0-9#=_/@.%-]{1,100}")
# Without a header of the other site, these load under COEP without cookies only.
WITHOUT_COOKIES = ("scripts", "styles", "images", "media")


class EmbedsError(ValueError):
    """An `@embeds` declares something unsafe or unknown. The service does not start."""


@dataclass(frozen=True)
class Embeds:
    """What a view embeds."""

    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trusted_types: tuple[str, ...] = ()
    popups: bool = False

    def joined(self, other: "Embeds") -> "Embeds":
        """Return the union of both."""
        return Embeds(
            _union(self.sources, other.sources),
            _union(self.features, other.features),
            _unique(self.trusted_types + other.trusted_types),
            self.popups or other.popups,
        )

    def isolation(self) -> dict[str, str]:
        """Return the values of COEP and COOP that differ from those of other views.

        `credentialless` can't replace `unsafe-none` for frames: the documents in them
        would have to send COEP too, or frames would need an attribute that only
        Chromium knows.
        """
        changed = {}
        if "frames" in self.sources:
            changed["Cross-Origin-Embedder-Policy"] = "unsafe-none"
        elif self.sources.keys() & set(WITHOUT_COOKIES):
            changed["Cross-Origin-Embedder-Policy"] = "credentialless"
        if self.popups:
            changed["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
        return changed

    def marks(self) -> Iterator[str]:
        """Yield the exceptions as `access.txt` shows them."""
        for kind, origins in self.sources.items():
            yield f"{kind}: {' '.join(origins)}"
        if self.features:
            yield f"features: {' '.join(self.features)}"
        if self.trusted_types:
            yield f"trusted types: {' '.join(self.trusted_types)}"
        if self.popups:
            yield "popups"


def embeds(
    *frames: str,
    features: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
    popups: bool = False,
    **sources: Sequence[str],
) -> Callable[[View], View]:
    """Let the page of a view load from other origins. It adds up with others above it.

    Args:
        frames: origins whose pages it may show in frames.
        features: browser features that the page and these frames may use, if the
            `allow` of the frame names them too.
        trusted_types: names of the Trusted Types policies that its scripts may create.
        popups: whether windows that it opens may message it, as some payments do.
        sources: `scripts`, `styles`, `images`, `fonts`, `media`, `connect` or `forms`,
            each a list of origins.

    Raises:
        EmbedsError: something is unsafe or unknown.
    """
    if "frames" in sources:
        raise EmbedsError(
            '@embeds takes frames without a name: @embeds("https://host")'
        )
    wanted = {"frames": frames, **sources} if frames else sources
    for kind, origins in wanted.items():
        _check_origins(kind, origins)
    _check_names(features, trusted_types)
    declared = Embeds(
        {kind: _unique(origins) for kind, origins in wanted.items()},
        dict.fromkeys(features, frames),
        _unique(trusted_types),
        popups,
    )

    def declare(view: View) -> View:
        embedded: Embeds = getattr(view, "embeds", Embeds()).joined(declared)
        view.embeds = embedded  # type: ignore[attr-defined]
        return view

    return declare


def _check_origins(kind: str, origins: Sequence[str]) -> None:
    if kind not in DIRECTIVES:
        raise EmbedsError(
            f"@embeds has no {kind!r}: use one of {', '.join(sorted(DIRECTIVES))}"
        )
    _check_list(kind, origins)
    form = SOCKET if kind == "connect" else ORIGIN
    for origin in origins:
        if not form.fullmatch(origin):
            raise EmbedsError(
                f"@embeds can't allow {kind} from {origin!r}, because only a whole"
                " origin keeps everyone else out: write https://host in lowercase,"
                " without a path, a wildcard or quotes"
            )


def _check_names(features: Sequence[str], trusted_types: Sequence[str]) -> None:
    _check_list("features", features)
    _check_list("trusted_types", trusted_types)
    for name in features:
        if name not in FEATURES:
            raise EmbedsError(
                f"@embeds can't allow the feature {name!r}: use one of"
                f" {', '.join(FEATURES)}. The base blocks no others, such as"
                " fullscreen: name those in the `allow` of the frame"
            )
    for name in trusted_types:
        if not POLICY.fullmatch(name):
            raise EmbedsError(
                f"@embeds can't allow the Trusted Types policy {name!r}, because it"
                " is not a name: write the name that the script passes to"
                " createPolicy()"
            )


def _check_list(kind: str, values: Sequence[str]) -> None:
    if isinstance(values, str):
        raise EmbedsError(f"@embeds needs a list: {kind}=[{values!r}]")


def _unique(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _union(
    one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    return {
        key: _unique(one.get(key, ()) + other.get(key, ())) for key in {**one, **other}
    }
