# The first stage builds a virtual environment from requirements that are pinned by hash. The second copies only that.

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements/ requirements/
# `tracing` adds OpenTelemetry's SDK and exporter: docker build --build-arg REQUIREMENTS=tracing .
ARG REQUIREMENTS=runtime
RUN python -m venv /opt/dialtone \
 && /opt/dialtone/bin/pip install --no-cache-dir --require-hashes -r "requirements/${REQUIREMENTS}.lock" \
 && python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app/ app/
COPY migrations/ migrations/
# Neither the tools that build the wheel nor pip are copied to the image.
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /build/wheel . \
 && /opt/dialtone/bin/pip install --no-cache-dir --no-deps /build/wheel/*.whl \
 && /opt/dialtone/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/dialtone --create-home --shell /usr/sbin/nologin dialtone
COPY --from=build /opt/dialtone /opt/dialtone
ENV PATH=/opt/dialtone/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DIALTONE_HOST=0.0.0.0 \
    DIALTONE_DATABASE_URL=sqlite:////var/lib/dialtone/ledger.db
WORKDIR /var/lib/dialtone
# Dialtone writes only to this folder, so the root file system may be read-only.
VOLUME /var/lib/dialtone
USER 10001
EXPOSE 8010
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('DIALTONE_PORT', '8010') + '/livez', timeout=2)"]
ENTRYPOINT ["dialtone"]
CMD ["serve"]
