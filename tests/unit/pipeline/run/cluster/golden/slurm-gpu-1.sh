#!/usr/bin/env bash

#SBATCH -J sam4em-gpu
#SBATCH -e sam4em-logs/sam4em-gpu-%J.err
#SBATCH -o sam4em-logs/sam4em-gpu-%J.out
#SBATCH -p a100
#SBATCH -A em
#SBATCH -n 1
#SBATCH --cpus-per-task=12
#SBATCH --mem=128G
#SBATCH -t 08:00:00
#SBATCH --gres=gpu:4
export PYTHONSAFEPATH=1
export OMP_NUM_THREADS=1
export MKL_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MALLOC_TRIM_THRESHOLD_=2147483648
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_ARENA_MAX=2
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0
export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False
export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
export DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT=5s
export DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=30s
export DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH=100
export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL='5 minutes'
export DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT=60s
export SAM4EM_WORKERS_PER_JOB=4
export SAM4EM_REQUIRE_GPU=1
module load cuda
PYTHON -m distributed.cli.dask_worker tcp://10.1.2.3:4567 --name gpu-1 --nthreads 2 --memory-limit 32.00GiB --nworkers 4 --nanny --death-timeout 60 --resources device=2 --no-dashboard --lifetime 26018s --lifetime-stagger 2601s --preload pipeline.run.cluster.gpu_preload --interface ib0
