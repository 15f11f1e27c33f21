"""Django with the middleware of cookiecutter-django: `gunicorn django_app:app`.

`python django_app.py` makes the tables and prints the headers of a signed-in user.
"""

import json
import os
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from shared import DJANGO_PAGES, PLACES, REPORT, ROLES

database = urlsplit(os.environ["BENCHMARK_DATABASE_URL"])
HOST = os.environ["BENCHMARK_HOST"]

settings.configure(
    SECRET_KEY="benchmark" * 8,
    ALLOWED_HOSTS=[HOST],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "corsheaders",
        "allauth",
        "allauth.account",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "corsheaders.middleware.CorsMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": database.hostname,
            "PORT": database.port,
            "USER": database.username,
            "NAME": database.path[1:],
            "ATOMIC_REQUESTS": True,
            "CONN_MAX_AGE": 60,
        }
    },
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [("django.template.loaders.locmem.Loader", DJANGO_PAGES)],
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }
    ],
    STATIC_URL="/static/",
    STATIC_ROOT="/nonexistent",
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    SECURE_SSL_REDIRECT=True,
    SECURE_HSTS_SECONDS=60,
    SECURE_HSTS_INCLUDE_SUBDOMAINS=True,
    SESSION_COOKIE_SECURE=True,
    CSRF_COOKIE_SECURE=True,
    X_FRAME_OPTIONS="DENY",
)
django.setup()


def anonymous_json(_: HttpRequest) -> HttpResponse:
    return JsonResponse(REPORT)


def page(request: HttpRequest) -> HttpResponse:
    return render(
        request, "page.html", {"title": "Home", "name": "Benchmark", "places": PLACES}
    )


def me(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    roles = sorted(group.name for group in request.user.groups.all())
    return JsonResponse(REPORT | {"email": request.user.email, "roles": roles})


urlpatterns = [
    path("benchmark/json", anonymous_json, name="json"),
    path("benchmark/me", me, name="me"),
    path("", page, name="page"),
]
app = get_wsgi_application()


def prepare() -> None:
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from django.test import Client

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("reader", f"reader@{HOST}", "benchmark")
    for role in ROLES:
        user.groups.add(Group.objects.create(name=role))
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie.value}"}
    print(json.dumps(headers))


if __name__ == "__main__":
    sys.exit(prepare())
