# The server with the demo's two prompts, on a processor: docs/how-to/deploy.md. Every package has the version of constraints.txt.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS packages
# builds of torch without CUDA; empty: the package index's own, which bring CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/softprompt
ENV PATH=/opt/softprompt/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt 'setuptools>=77' \
 && pip install -c constraints.txt torch ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}}
COPY pyproject.toml README.md ./
COPY adapters adapters
COPY benchmarks benchmarks
COPY examples examples
COPY softprompt softprompt
RUN pip install -c constraints.txt --no-build-isolation '.[serve]'

# about three minutes: the base is fetched, two prompts are trained
FROM packages AS prompts
ENV SOFTPROMPT_CACHE=/cache
RUN python examples/demo_prompts.py --out /artifacts

FROM ${PYTHON}
RUN useradd --create-home --uid 10001 softprompt \
 && mkdir /cache \
 && chown softprompt /cache
COPY --from=packages /opt/softprompt /opt/softprompt
COPY --from=prompts --chown=softprompt /cache/bases /cache/bases
COPY --from=prompts --chown=softprompt /artifacts /artifacts
ENV PATH=/opt/softprompt/bin:$PATH SOFTPROMPT_CACHE=/cache PYTHONUNBUFFERED=1
USER softprompt
WORKDIR /home/softprompt
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
# A container listens to whoever reaches it, so it asks for a token; to leave it empty is a choice. The shell becomes the server,
# which hears the signal that stops it.
ENTRYPOINT ["/bin/sh", "-c", ": \"${SOFTPROMPT_TOKEN?set a bearer token with -e SOFTPROMPT_TOKEN=…, or none with -e SOFTPROMPT_TOKEN=}\"; exec softprompt serve --host 0.0.0.0 --port 8080 \"$@\"", "softprompt"]
CMD ["/artifacts"]
