# Scheduler, driver and CPU workers.   docker build -f deploy/docker/cpu.Dockerfile -t sam4em:cpu .
FROM python:3.11-slim AS build
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY . /src
RUN TORCH_INDEX_URL=$TORCH_INDEX_URL /src/deploy/docker/install.sh /src /opt/sam4em cluster,k8s

FROM python:3.11-slim
COPY --from=build /opt/sam4em /opt/sam4em
ENV PATH=/opt/sam4em/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 1000
WORKDIR /tmp
CMD ["sam4em", "--help"]
