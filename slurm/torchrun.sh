#!/bin/bash
# One node's part of slurm/multi_gpu.sbatch. Slurm's warning, USR1, would kill torchrun but not its processes. torchrun
# receives SIGTERM instead, which it forwards to them.
source slurm/common.sh
forward_warning TERM "$PYTHON" -m torch.distributed.run "$@"
