# GPU workers; torch from PyPI brings its CUDA libraries, the host brings the driver (NVIDIA container toolkit).
# docker build -f deploy/docker/gpu.Dockerfile -t sam4em:gpu .
FROM python:3.11-slim AS build
ARG TORCH_INDEX_URL=
COPY . /src
RUN TORCH_INDEX_URL=$TORCH_INDEX_URL /src/deploy/docker/install.sh /src /opt/sam4em cluster

FROM python:3.11-slim
COPY --from=build /opt/sam4em /opt/sam4em
ENV PATH=/opt/sam4em/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /tmp
CMD ["sam4em", "--help"]
