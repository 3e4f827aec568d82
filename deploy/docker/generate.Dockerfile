# Writes text with vLLM on a GPU: a Prefect worker for generate-features/nightly and nightly/nightly.
#   docker build -f deploy/docker/generate.Dockerfile -t nightshift-generate .
# The CUDA libraries come with the wheels; the host brings the driver (run with --gpus all).
FROM python:3.11.13-slim-bookworm

# a C compiler for the kernels that Triton builds on first use
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 nightshift

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    VLLM_NO_USAGE_STATS=1 \
    HF_HUB_DISABLE_TELEMETRY=1

WORKDIR /opt/nightshift
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python deploy/install.py --extras gpu --venv /opt/venv

# /data is the volume; a relative data root (nightshift-data/...) lies there too
RUN install --directory --owner nightshift /data /home/nightshift/.prefect && ln --symbolic /data nightshift-data

USER 10001
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8080/health', timeout=3)"]
CMD ["prefect", "worker", "start", "--pool", "nightshift", "--work-queue", "generate", "--with-healthcheck"]
