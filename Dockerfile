# Build: docker build -t fks .   Run: see compose.yaml. The programs are `manage.py serve web|worker|beat`.
FROM python:3.12-slim-bookworm AS build
# requirements.txt with checksums, without the embedded servers: PostgreSQL and Valkey stand beside a container.
COPY deploy/image.lock /build/
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: -r /build/image.lock \
 && /venv/bin/pip uninstall --yes pip

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 fks && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin fks \
 && python -m pip uninstall --yes pip
COPY --from=build /venv /venv
COPY --chown=root:root manage.py /app/
COPY --chown=root:root brokers /app/brokers
COPY --chown=root:root risk /app/risk
COPY --chown=root:root execution /app/execution
COPY --chown=root:root fks_site /app/fks_site
COPY --chown=root:root templates /app/templates
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LOG_FORMAT=json FKS_VAR=/tmp/fks
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve", "web", "--http", "0.0.0.0:8000"]
