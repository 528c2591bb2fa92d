# sare serve in a container: `docker build --tag sare .`, then as docs/serve.md shows.
# To pin more than the tag, put the digest that `docker buildx imagetools inspect python:3.11-slim-bookworm` prints
# behind it: --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN python -m venv /opt/sare
WORKDIR /src
COPY . .
# An index with torch's wheels for the CPU alone, which are gigabytes smaller. Empty: the usual ones.
ARG TORCH_INDEX=
# Of every package the version that the tests passed with.
ENV PIP_CONSTRAINT=docs/constraints.txt PIP_NO_CACHE_DIR=1
RUN if [ -n "$TORCH_INDEX" ]; then /opt/sare/bin/pip install --index-url "$TORCH_INDEX" torch torchvision; fi \
    && /opt/sare/bin/pip install '.[web,provenance]'

FROM ${BASE}
COPY --from=build /opt/sare /opt/sare
# The root file system may be read-only; importing torch wants a /tmp (--tmpfs). Models are mounted, not fetched.
ENV PATH=/opt/sare/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HOME=/models/hub HOME=/tmp
RUN useradd --system --uid 10001 --no-create-home sare
USER 10001
# Detectors name their models by paths such as models/sd, which lead to the mounted /models from here.
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sare", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--detector", "/models/detector"]
