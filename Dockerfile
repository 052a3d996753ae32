# One image for every role; deploy/compose.yaml starts the roles. docs/deploy.md says how to run it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY requirements requirements
RUN python -m venv /opt/amocrm-mirror \
 && /opt/amocrm-mirror/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE alembic.ini ./
COPY alembic alembic
COPY amocrm_mirror amocrm_mirror
COPY models models
COPY pipelines pipelines
COPY sandbox sandbox
RUN /opt/build/bin/python -m build --no-isolation --wheel --outdir /dist \
 && /opt/amocrm-mirror/bin/pip install --no-cache-dir --no-deps --compile /dist/*.whl \
 && /opt/amocrm-mirror/bin/pip check

FROM python:${PYTHON}-slim
COPY --from=build /opt/amocrm-mirror /opt/amocrm-mirror
COPY deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
# /data is the only folder that is written to. It belongs to group 0, so that any user id may be given.
RUN useradd --uid 10001 --gid 0 --home-dir /data --create-home --shell /usr/sbin/nologin mirror \
 && chmod 0770 /data
ENV PATH=/opt/amocrm-mirror/bin:$PATH HOME=/data MIRROR_HOME=/data DAGSTER_HOME=/opt/dagster \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8780
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8780/health', timeout=4)"]
CMD ["amocrm-mirror", "serve", "--no-dagster", "--host", "0.0.0.0", "--port", "8780"]
