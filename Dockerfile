# One image for all roles: a Prefect server or worker, a Dask scheduler or worker, one run. docs/containers.md says how.
#
#     docker build --tag regraft .
#     docker run --rm regraft regraft --help
#
# Give the base by its digest where a build has to be the same next year: --build-arg PYTHON_IMAGE=python@sha256:...

ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /project
COPY requirements.lock ./
COPY locks ./locks
# What is downloaded has a SHA-256 in a lock file, build tools included; no package builds itself in an unchecked
# environment. These are the steps of `make setup`.
RUN pip install --no-build-isolation --require-hashes -r locks/build.lock \
    && pip install --no-build-isolation --require-hashes -r requirements.lock
# The installation knows folders only: what is in them comes last, so that a new revision is a layer of three megabytes.
COPY pyproject.toml setup.py ./
COPY packaging ./packaging
RUN mkdir flows regraft tasks && touch README.md flows/__init__.py regraft/__init__.py tasks/__init__.py \
    && pip install --no-build-isolation --no-deps -e .
COPY . ./

FROM ${PYTHON_IMAGE}
# DVC and Prefect call git, and git calls ssh. tini reaps what a run leaves behind, and passes signals on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home regraft \
    && chmod 1777 /home/regraft
COPY --from=build /opt/venv /opt/venv
COPY --from=build /project /project
COPY packaging/git-credential-regraft /usr/local/bin/
RUN git config --system credential.helper regraft
# Any user may run it (docker run --user), also one that has no name in the image.
ENV PATH=/opt/venv/bin:$PATH HOME=/home/regraft USER=regraft PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Dask's workers load ONNX Runtime without tasks/__init__.py, which says the same.
ENV ORT_DISABLE_TELEMETRY=1
# A project that is mounted here is the one that `regraft` works in; else it is the source that the image was made from.
WORKDIR /project
USER 10001:10001
ENTRYPOINT ["tini", "-g", "--"]
CMD ["regraft", "--help"]
