# The student of one task and its server, for a CPU:
#   docker build --build-arg TASK=address -t potstill-address .
#   docker run --rm -e SERVE_API_KEY -p 127.0.0.1:8000:8000 potstill-address
FROM python:3.11-slim-bookworm
WORKDIR /potstill
COPY requirements/cpu.lock requirements/
# vLLM links against libnuma; with a compiler it builds the model's kernels when it starts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++=4:12.2.0-3 libnuma1=2.0.16-1 \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r requirements/cpu.lock \
    && useradd --uid 1000 --create-home potstill
ARG TASK=address
ENV SERVE_TASK=${TASK} PYTHONDONTWRITEBYTECODE=1
COPY params.yaml ./
COPY schemas schemas
COPY potstill potstill
COPY tasks/${TASK} tasks/${TASK}
COPY data/${TASK}/knowledge.jsonl data/${TASK}/
COPY reports/${TASK} reports/${TASK}
COPY models/${TASK}/student models/${TASK}/student
USER 1000
EXPOSE 8000
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# PID 1 gets the SIGTERM of `docker stop` and drains: give it the time, `docker stop --time 40`.
ENTRYPOINT ["python", "-m", "potstill.serving.serve", "--host", "0.0.0.0"]
