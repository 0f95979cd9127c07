# A gateway: its HTTP server, its settlement worker and the clock of that.
#
#   docker build -f deploy/gateway.Dockerfile -t declai-gateway .
#   docker run --stop-timeout 60 -v ./gateway:/etc/declai:ro -v gateway-data:/var/lib/declai -p 8080:8080 -p 8081:8081 declai-gateway
#
# /etc/declai holds gateway.toml, the deployment, the keys and their password, readable by user 10001 alone. The image
# holds none of them. In gateway.toml: host = "0.0.0.0" with behind_tls = true, link_bind = "tcp://0.0.0.0:8081".
# Paths there (deployment, signer_keystore, session_keystore, password_file, link_key) are absolute: relative ones begin
# at /var/lib/declai. Redis is not in the image: redis_url and node_redis_url name one. A stop lets running requests end:
# --stop-timeout gives them more than Docker's 10 seconds.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/declai
RUN /opt/declai/bin/python -m pip install --no-cache-dir --constraint requirements.lock "$(echo /wheels/declai-*.whl)[gateway]"

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/declai --create-home declai
COPY --from=build /opt/declai /opt/declai
ENV PATH=/opt/declai/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DECLAI_HOME=/var/lib/declai \
    DECLAI_DATA_DIR=/var/lib/declai \
    DECLAI_PORT=8080 \
    DECLAI_CONFIG=/etc/declai/gateway.toml
WORKDIR /var/lib/declai
VOLUME /var/lib/declai
USER 10001
EXPOSE 8080 8081
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"DECLAI_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["declai"]
CMD ["gateway", "start"]
