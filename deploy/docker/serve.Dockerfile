# Runs the whole night by its own schedule, without a work pool: `nightshift serve` on a CPU. Its text comes from an
# OpenAI-compatible server (`vllm serve` first), from a file or from templates.
#   docker build -f deploy/docker/serve.Dockerfile -t nightshift-serve .
FROM python:3.11.13-slim-bookworm

RUN useradd --create-home --uid 10001 nightshift

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    VLLM_NO_USAGE_STATS=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PREFECT_RUNNER_SERVER_ENABLE=true

WORKDIR /opt/nightshift
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python deploy/install.py --extras encoder --venv /opt/venv

# /data is the volume; a relative data root (nightshift-data/...) lies there too
RUN install --directory --owner nightshift /data /home/nightshift/.prefect && ln --symbolic /data nightshift-data

USER 10001
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8080/health', timeout=3)"]
CMD ["nightshift", "serve", "--config", "/data/nightshift.toml"]
