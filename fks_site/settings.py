"""All settings, read from the environment. ``NAME_FILE`` names a file that holds the secret
``NAME``.

What an operator may change while FKS runs lives in the database instead (see ARCHITECTURE.md).
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from fks_site import addresses, database
from fks_site.logs import logging_config

env = environ.Env()
# A variable that is set to nothing, as compose files and manifests do, counts as not set.
env.ENVIRON = {name: value for name, text in os.environ.items() if (value := text.strip())}


def secret(name: str, default: str = "") -> str:
    """The value of ``name``, or the content of the file that ``name_FILE`` points at."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        return Path(path).read_text(encoding="utf-8").strip()
    return os.environ.get(name, default)


# --- paths and secrets ----------------------------------------------------------------------------
BASE_DIR = Path(__file__).resolve().parent.parent
FKS_VAR = Path(env.str("FKS_VAR", default=str(BASE_DIR / "var"))).resolve()
HTTP_ADDRESS = addresses.http(FKS_VAR)

DEBUG = env.bool("DEBUG", default=False)


def _key_of_installation(name: str) -> str:
    """``name`` from the environment, else the key ``manage.py up`` made under ``var/``."""
    value = secret(name)
    path = FKS_VAR / name.lower()
    if not value and path.is_file():
        value = path.read_text(encoding="utf-8").strip()
    return value


def _parts(text: str) -> list[str]:
    """What stands between the commas of ``text``."""
    return [part for one in text.split(",") if (part := one.strip())]


def _fallbacks() -> str:
    """A file that is not there names no key: whoever changes none needs none."""
    try:
        return _key_of_installation("SECRET_KEY_FALLBACKS")
    except FileNotFoundError:
        return ""


def _file_of_key(name: str) -> Path | None:
    """Where ``name`` is read from, unless it stands in the environment itself."""
    if given := os.environ.get(f"{name}_FILE"):
        return Path(given)
    return None if os.environ.get(name) else FKS_VAR / name.lower()


SECRET_KEY = _key_of_installation("SECRET_KEY")
# Sign nothing any more, and what they signed still counts: docs/upkeep.md says how keys are changed.
SECRET_KEY_FALLBACKS = _parts(_fallbacks())
CREDENTIAL_KEYS = _parts(_key_of_installation("CREDENTIAL_KEYS"))
CREDENTIAL_KEYS_PATH = _file_of_key("CREDENTIAL_KEYS")
if not SECRET_KEY:
    if sys.argv[1:2] not in (["up"], ["help"], ["makemigrations"]) and "--help" not in sys.argv:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. `manage.py up` makes one under var/; elsewhere set SECRET_KEY "
            "or SECRET_KEY_FILE."
        )
    SECRET_KEY = "unused: this command signs nothing"  # noqa: S105

ALLOWED_HOSTS = _parts(env.str("ALLOWED_HOSTS", default="localhost,127.0.0.1,[::1]"))
CSRF_TRUSTED_ORIGINS = [
    f"https://{host}"
    for host in ALLOWED_HOSTS
    if host not in ("localhost", "127.0.0.1", "[::1]", "*")
]
TRUSTED_PROXIES = tuple(_parts(env.str("TRUSTED_PROXIES", default="")))
METRICS_NETWORKS = tuple(_parts(env.str("FKS_METRICS_NETWORKS", default="")))


def _host_and_port(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]") or "127.0.0.1", int(port)) if port else None


# Where a worker offers what it counted; `manage.py up` needs none, its web processes add all up.
WORKER_METRICS = _host_and_port(env.str("FKS_WORKER_METRICS", default=""))

# --- what FKS may do ------------------------------------------------------------------------------
RETENTION_DAYS = env.int("FKS_RETENTION_DAYS", default=90)
FKS_LIVE_TRADING = env.bool("FKS_LIVE_TRADING", default=False)
# The address venues see this host's requests come from; hosts behind one share its limits.
EGRESS_ADDRESS = env.str("FKS_EGRESS_ADDRESS", default="")
MAX_BODY_BYTES = 64 * 1024

FIRST_START = {
    "webhook_secret": secret("WEBHOOK_SECRET"),
    "default_exchange": env.str("DEFAULT_EXCHANGE", default=""),
    "api_key": secret("EXCHANGE_API_KEY"),
    "api_secret": secret("EXCHANGE_API_SECRET"),
    "testnet": env.bool("TESTNET", default=True),
    "min_confidence": Decimal(env.str("MIN_CONFIDENCE", default="0.6")),
    "risk_per_trade": Decimal(env.str("RISK_PER_TRADE", default="0.02")),
    "max_order_value": Decimal(env.str("MAX_ORDER_SIZE_USD", default="10000")),
    "max_position_value": Decimal(env.str("MAX_POSITION_SIZE_USD", default="1000")),
    "rate_limit_requests": env.int("RATE_LIMIT_REQUESTS", default=100),
    "rate_limit_window": env.int("RATE_LIMIT_WINDOW", default=60),
}

# --- application ----------------------------------------------------------------------------------
INSTALLED_APPS = [
    "fks_site.apps.FksSiteConfig",
    "unfold",
    "unfold.contrib.filters",
    "fks_site.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "csp",
    "django_prometheus",
    "brokers.apps.BrokersConfig",
    "risk.apps.RiskConfig",
    "execution.apps.ExecutionConfig",
]

MIDDLEWARE = [
    "fks_site.middleware.api_paths",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "fks_site.middleware.audit_actor",
    "fks_site.twofactor.sessions",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "fks_site.middleware.count_failed_logins",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "fks_site.urls"
WSGI_APPLICATION = "fks_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# A redirect would lose a POST: API paths are routed with and without the slash instead.
APPEND_SLASH = True

STATIC_URL = "/static/"
STATIC_ROOT = FKS_VAR / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- database and queue ---------------------------------------------------------------------------
# Without a name of their own, the servers `manage.py up` runs under var/ are meant.
_embedded = addresses.urls(FKS_VAR)
DATABASES = {
    "default": {
        **database.config(secret("DATABASE_URL") or _embedded.database),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
REDIS_URL = secret("REDIS_URL") or _embedded.redis

# --- security -------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25
# Else whoever keeps trying keeps the operator out for ever.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "execution.guards.client_ip"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "fks_site.lock_out.name_is_locked"
AXES_VERBOSE = False

# Plain HTTP is for the embedded default on loopback; anything else is served behind TLS.
BEHIND_TLS = env.bool("FKS_BEHIND_TLS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_TLS
SESSION_COOKIE_AGE = 8 * 3600
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
MESSAGE_STORAGE = "fks_site.notices.Notices"
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = BEHIND_TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_TLS else None
# The proxy refuses or redirects plain HTTP; a redirect from here would lose webhooks.
SILENCED_SYSTEM_CHECKS = ["security.W008"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Unfold's Alpine.js evaluates expressions and sets theme colours inline; see docs/adr/.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'", "'unsafe-eval'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
        "base-uri": ["'self'"],
        "object-src": ["'none'"],
    }
}

# --- REST API -------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.DjangoModelPermissions"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "execution.pagination.NewestFirst",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "execution.errors.exception_handler",
    "PAGE_SIZE": 50,
    "COERCE_DECIMAL_TO_STRING": True,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "AUDIENCE": "fks",
    "ISSUER": "fks",
    "AUTH_TOKEN_CLASSES": ("execution.token_keys.AccessToken",),
}
SPECTACULAR_SETTINGS = {
    "TITLE": "FKS",
    "DESCRIPTION": "Trading alerts into orders that can be trusted.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/(v1/)?",
    "PREPROCESSING_HOOKS": ["fks_site.openapi.without_trailing_slash"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "fks_site.openapi.complete",
    ],
    "ENUM_NAME_OVERRIDES": {
        "OrderState": "execution.states.OrderState",
        "SignalState": "execution.states.SignalState",
        "BreakerState": "risk.models.CircuitBreaker.State",
        "SwitchState": "risk.models.TradingState.State",
        "SwitchScope": "risk.models.TradingState.Scope",
        "Side": "execution.models.SideChoices",
        "OrderType": "execution.models.TypeChoices",
        "TimeInForce": "execution.models.TimeInForceChoices",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- traces ---------------------------------------------------------------------------------------
TRACES_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
# Where an operator looks at them; {trace_id} is put in, for example https://tempo.example/{trace_id}
TRACE_URL = env.str("FKS_TRACE_URL", default="")

# --- logs -----------------------------------------------------------------------------------------
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config(env.str("LOG_FORMAT", default="console"), debug=DEBUG)

# --- admin theme ----------------------------------------------------------------------------------
from fks_site.theme import UNFOLD  # noqa: E402, F401  (Unfold reads it from the settings)
