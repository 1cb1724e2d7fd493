"""The first thing that a Slurm job's python does: hold the signals that ask it to leave, before anything that
takes time is loaded.

They are kept waiting, not lost, and come through when `serl.run.signals.Stop.listen` is ready for them.
Importing the task alone takes half a second, in which python would die of them.
"""

import signal

signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))

if __name__ == "__main__":
    from submitit.core.submission import submitit_main

    submitit_main()
