#!/bin/bash
# A node's share of slurm/multi_gpu.sbatch. Of Slurm's warning torchrun would die, and its processes go on without it:
# it gets SIGTERM in its stead, which it passes on to them.
source slurm/common.sh
pass_on_warning TERM "$PYTHON" -m torch.distributed.run "$@"
