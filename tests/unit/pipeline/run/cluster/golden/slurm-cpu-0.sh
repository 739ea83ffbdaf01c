#!/usr/bin/env bash

#SBATCH -J sam4em-cpu
#SBATCH -e sam4em-logs/sam4em-cpu-%J.err
#SBATCH -o sam4em-logs/sam4em-cpu-%J.out
#SBATCH -p normal
#SBATCH -A em
#SBATCH -n 1
#SBATCH --cpus-per-task=2
#SBATCH --mem=6G
#SBATCH -t 01:30:30
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
PYTHON -m distributed.cli.dask_worker tcp://10.1.2.3:4567 --name cpu-0 --nthreads 2 --memory-limit 6.00GiB --nanny --death-timeout 60 --resources cpu=2 --no-dashboard --lifetime 4772s --lifetime-stagger 477s --interface ib0
