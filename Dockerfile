# Two images: `service`, the default, and `development`, which also contains the sandbox.
#   docker build -t dialtone .
#   docker build --target development -t dialtone-development .
# docs/container.md describes the build arguments and how to run the image.

# The release workflow passes this tag with its digest.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# A virtual environment without pip, from requirements that are pinned by hash. The tools that build it are in another one.
FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY requirements/ requirements/
# `tracing` adds OpenTelemetry's SDK and exporter.
ARG REQUIREMENTS=runtime
# Settings of pip for a mirror of the package index: its address, and a file with CA certificates.
ARG PIP_INDEX_URL
ARG PIP_CERT
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock \
 && python -m venv --without-pip /opt/dialtone \
 && /opt/tools/bin/pip --python /opt/dialtone/bin/python install --no-cache-dir --require-hashes \
      -r "requirements/${REQUIREMENTS}.lock"
COPY pyproject.toml README.md LICENSE ./
COPY app/ app/
COPY migrations/ migrations/

FROM build AS build-development
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir dist . \
 && /opt/tools/bin/pip --python /opt/dialtone/bin/python install --no-cache-dir --no-deps dist/*.whl

FROM build AS build-service
RUN rm -r app/sandbox \
 && /opt/tools/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir dist . \
 && /opt/tools/bin/pip --python /opt/dialtone/bin/python install --no-cache-dir --no-deps dist/*.whl

FROM ${BASE_IMAGE} AS runtime
# Deletes the base image's installers: /usr/local is the prefix of the official Python image, /usr of Debian's Python.
# No program may gain privileges. `--no-log-init` avoids a large sparse file for the high user id.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
      /usr/bin/pip* /usr/lib/python3*/ensurepip /usr/lib/python3/dist-packages/* /usr/share/python-wheels \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --gid 10001 dialtone \
 && useradd --no-log-init --uid 10001 --gid 10001 --home-dir /var/lib/dialtone --no-create-home \
      --shell /usr/sbin/nologin dialtone \
 && install --directory --owner 10001 --group 10001 --mode 700 /var/lib/dialtone
ARG VERSION=development
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Dialtone" \
      org.opencontainers.image.description="Exchanges a signed-in user's access token for a short-lived Telnyx WebRTC login" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No variable here sets a secret, such as the database's address: it would conflict with the variable that names its file.
ENV PATH=/opt/dialtone/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DIALTONE_HOST=0.0.0.0
WORKDIR /var/lib/dialtone
# Dialtone writes only to this folder, so the root file system may be read-only.
VOLUME /var/lib/dialtone
USER 10001:10001
EXPOSE 8010
STOPSIGNAL SIGTERM
# http.client ignores the proxy variables of the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-IS", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', os.environ.get('DIALTONE_PORT') or 8010, timeout=2); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["dialtone"]
CMD ["serve"]

FROM runtime AS development
COPY --from=build-development /opt/dialtone /opt/dialtone

FROM runtime AS service
COPY --from=build-service /opt/dialtone /opt/dialtone
