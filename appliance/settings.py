"""Django's settings, all derived from the environment (`appliance.environment`) and the state directory."""

import sys
from pathlib import Path

from huey import SqliteHuey

from appliance.environment import BadEnvironment, read_environment
from appliance.secrets import read_or_create_secret

BASE_DIR = Path(__file__).resolve().parent.parent

try:
    ENVIRONMENT = read_environment()
    ENVIRONMENT.create_directories()
except BadEnvironment as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(2) from None

DEBUG = False
SECRET_KEY = read_or_create_secret(ENVIRONMENT.home / "secret-key")
ALLOWED_HOSTS = [*ENVIRONMENT.hosts, ENVIRONMENT.bind, "127.0.0.1", "localhost", "[::1]"]
if ENVIRONMENT.bind in ("0.0.0.0", "::") and not ENVIRONMENT.hosts:  # noqa: S104 - compared, not bound
    ALLOWED_HOSTS = ["*"]  # asked for all addresses and named none: the operator's choice

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "huey.contrib.djhuey",
    "ninja",  # for the static files of the API's documentation
    "appliance",
    "dashboard",
]
MIDDLEWARE = [
    "appliance.api.middleware.json_alone",  # first: it sees what all others answer
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "appliance.urls"
ASGI_APPLICATION = "appliance.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    # A writer takes the lock at the start of its transaction, so it never has to give up half-way.
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 5},
}
DATABASES = {
    "default": {**_SQLITE, "NAME": ENVIRONMENT.home / "db.sqlite3"},
    "history": {**_SQLITE, "NAME": ENVIRONMENT.home / "history.sqlite3"},
}
DATABASE_ROUTERS = ["appliance.routers.HistoryRouter"]

# Clock and hands, never memory: what must not be lost is a row of ours.
HUEY = SqliteHuey(
    "millwright", filename=str(ENVIRONMENT.home / "huey.sqlite3"), immediate=False, results=False
)
# One process serves the websockets, so its memory is layer enough.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENVIRONMENT.scheme == "https"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# The admin's looks and its sidebar; `dashboard.sidebar` says who sees which entry.
UNFOLD = {
    "SITE_TITLE": "Millwright",
    "SITE_HEADER": "Millwright",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_HISTORY": False,  # the audit log has it, also for what the command line did
    "BORDER_RADIUS": "4px",
    "COLORS": {
        "primary": {
            "50": "oklch(97.4% .014 230)",
            "100": "oklch(94.4% .028 232)",
            "200": "oklch(89% .055 233)",
            "300": "oklch(81% .098 234)",
            "400": "oklch(72% .13 237)",
            "500": "oklch(62% .14 240)",
            "600": "oklch(53% .132 243)",
            "700": "oklch(46% .115 244)",
            "800": "oklch(40% .095 244)",
            "900": "oklch(35% .08 245)",
            "950": "oklch(26% .06 246)",
        }
    },
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "dashboard.sidebar.find_icon"}],
    "STYLES": ["dashboard.sidebar.find_stylesheet"],
    "SIDEBAR": {"navigation": "dashboard.sidebar.build_sidebar"},
}

LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = "dashboard.conventions"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
