# Sourced by the scripts of this folder.

# The project's own environment where `make setup` made it, else the python that is active. SALT_PYTHON overrides both.
PYTHON=${SALT_PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)}

# pass_on_warning SIGNAL COMMAND ...: runs a command, which gets SIGNAL when this shell gets USR1, Slurm's warning; sets
# `warned`. SIGTERM (scancel, preemption) reaches the command by itself: passing it on too would be its second signal,
# at which it stops without saving.
pass_on_warning() {
  local signal=$1 child status
  warned=""
  # srun gives a task's signals to all its processes: what is to get another one in its stead must not hear it.
  ([[ $signal == USR1 ]] || trap '' USR1; exec "${@:2}") &
  child=$!
  trap 'warned=yes; kill -"$signal" "$child" 2>/dev/null' USR1
  trap ':' TERM
  # A trapped signal ends `wait` early: wait until the command itself has ended.
  while true; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  trap - USR1 TERM
  return "$status"
}

# Runs a command that saves at Slurm's warning and ends with another status than 0; the job is then queued again.
run_or_requeue() {
  pass_on_warning USR1 "$@"
  local status=$?
  if [[ -n $warned && $status -ne 0 ]]; then
    echo "stopped by Slurm's warning (exit status $status); queued again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
