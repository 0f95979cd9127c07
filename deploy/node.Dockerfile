# A node: it serves the layers that its operator offers.
#
#   docker build -f deploy/node.Dockerfile -t declai-node .
#   docker run --stop-timeout 120 --gpus all -v ./node:/etc/declai:ro -v node-data:/var/lib/declai -p 8082:8082 declai-node
#
# /etc/declai holds node.toml, the deployment, the keys and their password, readable by user 10001 alone. The image
# holds none of them. In node.toml: link_bind = "tcp://0.0.0.0:8082", and absolute paths (deployment, signer_keystore,
# password_file, link_key): relative ones begin at /var/lib/declai. A stop lets running jobs finish: --stop-timeout gives
# them more than Docker's 10 seconds.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/declai
RUN /opt/declai/bin/python -m pip install --no-cache-dir --constraint requirements.lock "$(echo /wheels/declai-*.whl)[node]"

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/declai --create-home declai
COPY --from=build /opt/declai /opt/declai
ENV PATH=/opt/declai/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DECLAI_HOME=/var/lib/declai \
    DECLAI_DATA_DIR=/var/lib/declai \
    DECLAI_CONFIG=/etc/declai/node.toml
WORKDIR /var/lib/declai
VOLUME /var/lib/declai
USER 10001
EXPOSE 8082
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["declai", "node", "status", "--max-age", "30"]
ENTRYPOINT ["declai"]
CMD ["node", "start"]
