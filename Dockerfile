# The whole pipeline, for macOS and Windows. The checkout is mounted; the environment, which `make`
# sets up as on any Linux, lies in a volume (.devcontainer/devcontainer.json does the same):
#   docker build --target work -t potstill .
#   docker run --rm -it -v "$PWD:/potstill" -v potstill-venv:/potstill/.venv potstill make repro
FROM python:3.11-bookworm AS work
WORKDIR /potstill
# The mounted files belong to another user, which git refuses unless told.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1=2.0.16-1 \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'

# The student of one task and its server, for a CPU. TASK is the task's folder, the root's own when
# left out:
#   docker build --build-arg TASK=tasks/support -t potstill-support .
#   docker run --rm -e SERVE_API_KEY -p 127.0.0.1:8000:8000 potstill-support
FROM python:3.11-slim-bookworm
WORKDIR /potstill
COPY requirements/cpu.lock requirements/
# vLLM links against libnuma; with a compiler it builds the model's kernels when it starts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++=4:12.2.0-3 libnuma1=2.0.16-1 \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --no-deps --require-hashes \
        --extra-index-url https://download.pytorch.org/whl/cpu -r requirements/cpu.lock \
    && useradd --uid 1000 --create-home potstill
# The code is in one place; the working folder is the task's, as on your machine.
ENV PYTHONPATH=/potstill PYTHONDONTWRITEBYTECODE=1
COPY schemas schemas
COPY potstill potstill
ARG TASK=.
WORKDIR /potstill/${TASK}
COPY ${TASK}/task.yaml ${TASK}/schema.json ${TASK}/params.yaml ./
COPY ${TASK}/prompts prompts
COPY ${TASK}/reports reports
COPY ${TASK}/models/student models/student
USER 1000
EXPOSE 8000
HEALTHCHECK --start-period=5m --timeout=10s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
# PID 1 gets the SIGTERM of `docker stop` and drains: give it the time, `docker stop --time 40`.
ENTRYPOINT ["python", "-m", "potstill.serving.serve", "--host", "0.0.0.0"]
