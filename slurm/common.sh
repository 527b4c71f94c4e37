# Sourced by the scripts of this folder.

# The environment of `make setup` if it exists, else the active python. SALT_PYTHON overrides both.
PYTHON=${SALT_PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)}

# forward_warning SIGNAL COMMAND ...: runs a command and sends it SIGNAL when this shell receives USR1, Slurm's warning;
# then sets `warned`. SIGTERM (scancel, preemption) is not forwarded: Slurm sends it to the command as well, which stops
# without saving at a second signal.
forward_warning() {
  local signal=$1 child status
  warned=""
  # srun sends USR1 to all processes of a task: a command that is to receive another signal must ignore it.
  ([[ $signal == USR1 ]] || trap '' USR1; exec "${@:2}") &
  child=$!
  trap 'warned=yes; kill -"$signal" "$child" 2>/dev/null' USR1
  trap ':' TERM
  # A trapped signal ends `wait` early, so wait again until the command has ended.
  while true; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  trap - USR1 TERM
  return "$status"
}

# run_or_requeue COMMAND ...: runs a command that saves at Slurm's warning and exits with a status other than 0, and then
# requeues the job.
run_or_requeue() {
  forward_warning USR1 "$@"
  local status=$?
  if [[ -n $warned && $status -ne 0 ]]; then
    echo "stopped by Slurm's warning (exit status $status); requeued"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
