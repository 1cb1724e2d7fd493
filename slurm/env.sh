# What a job sets before Python starts; sourced by the batch script, on its first node, through a cluster file's `setup`:
#   setup: [source slurm/env.sh]        a run's own copy: its jobs start in the code that was frozen at launch
# srun carries it to every task. What is set already stays as it is, so that a line before this one in `setup` decides.
# A site adds its own lines there (module load, network interface); this file needs no change.

# Compiled kernels stay on the node: thousands of small files, written by many processes at once, are no work for a shared file system.
# They are kept for the next job. A GPU has one job at a time, so that what lies under its number has one writer; Slurm numbers GPUs per
# node, hence only jobs of one node share that way, and all others start afresh.
serl_local=${SERL_LOCAL:-${SLURM_TMPDIR:-/tmp}}/serl-$(id -u)
if [ -n "${SLURM_JOB_GPUS:-}" ] && [ "${SLURM_JOB_NUM_NODES:-1}" = 1 ]; then
    serl_caches=$serl_local/gpu-${SLURM_JOB_GPUS//,/-}
else
    serl_caches=$serl_local/job-${SLURM_JOB_ID:-$$}
    trap 'rm -rf "$serl_caches"' EXIT
fi
export VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-$serl_caches/vllm}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$serl_caches/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$serl_caches/triton}
export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$serl_caches/extensions}
export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$serl_caches/flashinfer}
export DG_JIT_CACHE_DIR=${DG_JIT_CACHE_DIR:-$serl_caches/deepgemm}
export TILELANG_CACHE_DIR=${TILELANG_CACHE_DIR:-$serl_caches/tilelang}
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$serl_caches/cuda}
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$serl_caches/numba}
export MPLCONFIGDIR=${MPLCONFIGDIR:-$serl_caches/matplotlib}
export PYTORCH_KERNEL_CACHE_PATH=${PYTORCH_KERNEL_CACHE_PATH:-$serl_caches/kernels}
export HF_HOME=${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/huggingface} # models that are there already stay to be found
export XDG_CACHE_HOME=$serl_caches/xdg                                     # whatever else would go to ~/.cache
export TMPDIR=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
# Weights, too, where the site says that nodes have a disk (SLURM_TMPDIR, or SERL_LOCAL in `setup`); /tmp may be memory, so not there by itself.
if [ -n "${SERL_LOCAL:-${SLURM_TMPDIR:-}}" ]; then
    export SERL_WEIGHTS=${SERL_WEIGHTS-$serl_local/weights}
fi
mkdir -p "$serl_caches"

# Threads: what was asked for, not what the node has.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-$OMP_NUM_THREADS}
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}

# Compute nodes often have no way out: nothing is looked up, downloaded or reported. No bytecode and no core files beside the code.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TRANSFORMERS_OFFLINE=${TRANSFORMERS_OFFLINE:-1} HF_DATASETS_OFFLINE=${HF_DATASETS_OFFLINE:-1}
export VLLM_NO_USAGE_STATS=1 VLLM_DO_NOT_TRACK=1 PYTHONDONTWRITEBYTECODE=1
ulimit -c 0
