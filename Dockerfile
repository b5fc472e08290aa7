# syntax=docker/dockerfile:1
# An image whose command is ms2:
#
#   docker build -t ms2 .
#   docker run --rm --gpus all -v "$PWD/runs:/work/runs" ms2 fit --config multimnist_quick
#
# No image could be built where this file was written, as no Docker daemon runs there. All that is installed is therefore
# in tools/install_image.sh, which .ci/run runs in an empty environment; the lines here only say where.
FROM python:3.12-slim

RUN --mount=type=bind,target=/src,rw /src/tools/install_image.sh /src

RUN useradd --create-home ms2 && mkdir -p /work/runs && chown -R ms2 /work
USER ms2
WORKDIR /work
ENTRYPOINT ["ms2"]
CMD ["--help"]
