# One image for every program of Penstock: the gateway, each stage, the tools.
#
# PIP_ARGS is handed to pip, for an index of your own, or for a torch build without CUDA:
#   docker build --build-arg PIP_ARGS="--extra-index-url <index>" .
FROM python:3.12-slim

ARG PIP_ARGS=""
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# The compiler is for the engine's steps on a CPU, which are compiled for the processor they run on.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 10001 --create-home penstock \
 && install -d -o penstock -g penstock /home/penstock/.cache /home/penstock/.cache/huggingface
WORKDIR /app

# The libraries first, by far the largest layer: it changes with them alone, not with the program.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && pip install $PIP_ARGS --constraint constraints.txt --requirement requirements.txt

COPY README.md ./
COPY pipeline pipeline
COPY stages stages
COPY apps apps
RUN pip install $PIP_ARGS --no-deps .

USER penstock
WORKDIR /home/penstock
EXPOSE 8080 9100
ENTRYPOINT ["penstock"]
CMD ["--help"]
